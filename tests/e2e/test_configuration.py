"""The configuration changes under load: good ones without a failure, bad ones without an effect."""

import json
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.e2e.conftest import ROUNDS, Build, UnderLoad
from tests.support.ports import free_port
from tests.support.site import Site
from tests.support.waiting import until


def generation(site: Site) -> int:
    found: int = site.admin("GET", "/v1/status")["generation"]
    return found


def reload(site: Site, **extra: Any) -> None:
    before = generation(site)
    site.extra.update(extra)
    site.write()
    site.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
    until(lambda: generation(site) > before)


@pytest.mark.parametrize("under_load", ROUNDS)
def test_reloads_under_load_fail_nothing(site: Site, under_load: UnderLoad) -> None:
    for _ in range(under_load[0]):
        reload_often(site, under_load[1])
    site.assert_balanced()


def reload_often(site: Site, seconds: float) -> None:
    with site.load() as load, site.load("--fresh", "--clients", "4") as fresh:
        site.listed.remove("api3")
        reload(site, balance={"policy": "round_robin", "slow_start": "0s"})
        reload(site, workers=1)
        site.until_workers(1)
        site.listed.append("api3")
        second = free_port()
        reload(site, workers=3, listen=[{"bind": f"127.0.0.1:{site.port}"}, {"bind": f"127.0.0.1:{second}"}])
        site.until_workers(3)
        with socket.create_connection(("127.0.0.1", second), 5) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 200 " in client.recv(4096)
        reload(site, workers=2, listen=[{"bind": f"127.0.0.1:{site.port}"}])
        site.until_workers(2)
        until(lambda: is_refused(second))
        result, connections = load.stop(seconds), fresh.stop()
    result.assert_clean()
    connections.assert_clean()


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_bad_file_changes_nothing(site: Site) -> None:
    before, workers = generation(site), site.worker_pids()
    good = site.config_path.read_text()
    with site.load() as load:
        for bad in ("nodes: [", '{"version": 1, "listn": []}', good.replace('"workers": 2', '"workers": 2000')):
            site.config_path.write_text(bad)
            site.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
            with pytest.raises(AssertionError, match=r"error"):
                site.admin("POST", "/v1/config/reload", {})
        result = load.stop(3)
    result.assert_clean()
    assert generation(site) == before
    assert site.worker_pids() == workers


def test_control_that_dies_over_a_bad_file_runs_on_the_last_good_one(site: Site) -> None:
    site.config_path.write_text("version: 1\nlistn: []\n")
    before = site.control_pid()
    site.kill(before)
    until(lambda: site.control_pid() not in (0, before))
    site.until_healthy(3)
    events = site.admin("GET", "/v1/events")["events"]
    assert any(event["kind"] == "reload-refused" for event in events)
    site.nodes["api1"].kill()
    until(lambda: site.states()["api1"] == "unhealthy")
    site.write()
    site.admin("POST", "/v1/config/reload", {})
    assert site.ask()[0] == 200


def test_an_address_that_is_taken_changes_nothing(site: Site) -> None:
    before = generation(site)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        site.extra["listen"] = [{"bind": f"127.0.0.1:{site.port}"}, {"bind": f"127.0.0.1:{taken.getsockname()[1]}"}]
        site.write()
        with pytest.raises(AssertionError, match="another process listens there"):
            site.admin("POST", "/v1/config/reload", {})
    assert generation(site) == before
    assert site.ask()[0] == 200


def test_serve_names_every_fault_of_a_file_and_ends_with_3(build: Build) -> None:
    site = build()
    site.write()
    config = json.loads(site.config_path.read_text())
    config["lisen"] = config.pop("listen")
    config["workers"] = "many"
    config["nodes"]["api1"]["url"] = "ftp://x"
    site.config_path.write_text(json.dumps(config, indent=1))
    site.cli("serve", "--check", "-c", str(site.config_path), code=3)
    site.cli("serve", "-c", str(site.config_path), code=3)


def test_serve_on_a_port_that_is_taken_says_so_and_ends_with_3(build: Build) -> None:
    site = build()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        site.extra["listen"] = [{"bind": bind}]
        site.write()
        command = [sys.executable, "-P", "-m", "balancer", "serve", "-c", str(site.config_path)]
        ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=40, check=False)
    assert ended.returncode == 3, ended.stderr
    assert f"error: {bind}: Address already in use (another process listens there, `ss -ltnp`" in ended.stderr


def certificate(site: Site, authority: trustme.CA, name: str, ends: datetime | None = None) -> None:
    issued = authority.issue_cert(name, not_after=ends)
    issued.private_key_and_cert_chain_pem.write_to_path(str(site.folder / "new.pem"))
    shutil.move(site.folder / "new.pem", site.folder / "server.pem")


def served_certificate(site: Site, authority_file: Path, name: str) -> dict[str, Any]:
    context = ssl.create_default_context(cafile=str(authority_file))
    plain = socket.create_connection(("127.0.0.1", site.port), 10)
    with plain, context.wrap_socket(plain, server_hostname=name) as client:
        found = client.getpeercert()
        assert found is not None
        return found


def test_certificates_are_replaced_under_load(build: Build) -> None:
    site, authority = build(), trustme.CA()
    trusted = site.folder / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    certificate(site, authority, "one.example")
    site.extra["listen"] = [{"bind": f"127.0.0.1:{site.port}", "tls": {"cert": str(site.folder / "server.pem")}}]
    site.start()
    first = served_certificate(site, trusted, "one.example")
    with site.load("--tls", "--kinds", "fast", "slow", "down", "up", "post") as load:
        certificate(site, authority, "two.example")
        reload(site)
        until(lambda: accepts(site, trusted, "two.example"))
        result = load.stop(3)
    result.assert_clean()
    assert served_certificate(site, trusted, "two.example")["serialNumber"] != first["serialNumber"]
    assert not accepts(site, trusted, "one.example")
    for pid in site.worker_pids().values():
        assert b".pem" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_an_expired_certificate_is_loud_and_keeps_no_other_change_out(build: Build) -> None:
    site, authority = build(), trustme.CA()
    yesterday = datetime.now(UTC) - timedelta(days=1)
    certificate(site, authority, "one.example", yesterday)
    tls = {"bind": f"127.0.0.1:{free_port()}", "tls": {"cert": str(site.folder / "server.pem")}}
    site.extra["listen"] = [{"bind": f"127.0.0.1:{site.port}"}, tls]
    site.start()
    said = f"the certificate of one.example expired on {yesterday:%Y-%m-%d}"
    assert said in site.admin("GET", "/v1/status")["causes"]
    assert any(event["kind"] == "certificate-expired" for event in site.admin("GET", "/v1/events")["events"])
    assert "expired on" in site.cli("check", str(site.config_path), code=0)
    reload(site, balance={"policy": "round_robin", "slow_start": "0s"})
    assert site.ask()[0] == 200
    certificate(site, authority, "one.example")
    site.admin("POST", "/v1/config/reload", {})
    assert said not in site.admin("GET", "/v1/status")["causes"]


def accepts(site: Site, trusted: Path, name: str) -> bool:
    try:
        served_certificate(site, trusted, name)
    except ssl.SSLError:
        return False
    return True
