"""`arv-balance render` as an operator types it: where things are written, how it ends, what it says."""

import asyncio
import json
import os
import stat
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from balancer.control.designation_row import PostgresStore
from balancer.control.designation_store import Remembered
from balancer.control.intents import Intent, Intents, Kind, to_document
from balancer.control.statefile import encode
from balancer.render.engine import ENGINES
from tests.support.postgres import database, postgres_server

__all__ = ["database", "postgres_server"]  # fixtures

AT = datetime(2026, 11, 1, tzinfo=UTC)


def site(folder: Path, **more: Any) -> None:
    """Write a configuration."""
    values = {
        "version": 1,
        "listen": [{"bind": "127.0.0.1:8080"}],
        "nodes": {name: {"url": f"http://127.0.0.1:{port}"} for name, port in (("a", 9001), ("b", 9002), ("c", 9003))},
        "designated": {"dns": {"order": ["a", "b", "c"]}},
        "routes": [{"name": "ping", "match": {"path": "/ping"}, "to": {"designated": "dns"}}],
        "state": {"dir": str(folder)},
        **more,
    }
    (folder / "arv-balance.yml").write_text(json.dumps(values))


def run(folder: Path, *arguments: str, path: str | None = None) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PATH": path if path is not None else os.environ["PATH"]}
    command = [sys.executable, "-P", "-m", "balancer", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)


def test_the_short_form_is_the_long_one(tmp_path: Path) -> None:
    site(tmp_path)
    short, long = run(tmp_path, "render-haproxy"), run(tmp_path, "render", "haproxy")
    assert short.returncode == long.returncode == 0
    assert short.stdout == long.stdout
    assert short.stdout.startswith("# Rendered by arv-balance")


def test_what_is_written_replaces_the_old_file_whole_and_keeps_its_mode(tmp_path: Path) -> None:
    site(tmp_path)
    out = tmp_path / "haproxy.cfg"
    out.write_text("old")
    out.chmod(0o640)
    before = out.stat().st_ino
    ran = run(tmp_path, "render-haproxy", "-o", "haproxy.cfg")
    assert (ran.returncode, ran.stdout) == (0, "")
    assert "wrote haproxy.cfg" in ran.stderr
    assert out.stat().st_ino != before  # another file in its place, not the same one cut and filled
    assert stat.S_IMODE(out.stat().st_mode) == 0o640
    assert out.read_text().endswith("no log\n")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_refused_configuration_leaves_the_old_file(tmp_path: Path) -> None:
    site(tmp_path, request_id={"header": "X-#"})
    (tmp_path / "haproxy.cfg").write_text("old")
    ran = run(tmp_path, "render-haproxy", "-o", "haproxy.cfg")
    assert (ran.returncode, ran.stdout) == (3, "")
    assert "'X-#' cannot be rendered" in ran.stderr
    assert (tmp_path / "haproxy.cfg").read_text() == "old"


def test_an_invalid_configuration_is_said_as_check_says_it(tmp_path: Path) -> None:
    site(tmp_path, timeouts={"connect": "soon"})
    ran = run(tmp_path, "render", "nginx")
    assert (ran.returncode, ran.stdout) == (3, "")
    assert "'soon' is not a duration" in ran.stderr


def test_a_folder_that_is_not_there_changes_nothing(tmp_path: Path) -> None:
    site(tmp_path)
    ran = run(tmp_path, "render", "caddy", "-o", "nowhere/Caddyfile")
    assert ran.returncode == 1
    assert "cannot write nowhere/Caddyfile: No such file or directory\n  nothing was changed" in ran.stderr


def test_traefik_gets_two_files_that_know_each_other(tmp_path: Path) -> None:
    site(tmp_path)
    assert run(tmp_path, "render", "traefik", "-o", "t.yml").returncode == 0
    assert f'filename: "{tmp_path}/t.dynamic.yml"' in (tmp_path / "t.yml").read_text()
    assert (tmp_path / "t.dynamic.yml").read_text().startswith("# Rendered by")


@pytest.mark.parametrize("engine", ENGINES)
def test_the_report_is_json_for_programs(tmp_path: Path, engine: str) -> None:
    site(tmp_path)
    ran = run(tmp_path, "render", engine, "--report", "json")
    report = json.loads(ran.stderr)
    assert (ran.returncode, report["schema"], report["engine"]) == (0, "arv-balance/fidelity/v1", engine)
    kinds = {item["fidelity"] for item in report["features"]}
    assert kinds == {"exact", "approximated", "impossible"}
    assert all(item["how"] for item in report["features"] if item["fidelity"] != "exact")


def test_check_runs_the_engines_own(tmp_path: Path) -> None:
    site(tmp_path)
    ran = run(tmp_path, "render-haproxy", "--check", "--option", f"socket={tmp_path}/s")
    assert ran.returncode == 0
    assert "haproxy: accepted by " in ran.stderr


def test_check_of_what_the_engine_refuses_is_no(tmp_path: Path) -> None:
    site(tmp_path, listen=[{"bind": "127.0.0.1:8443", "tls": {"cert": "/nowhere/api.pem"}}])
    ran = run(tmp_path, "render-haproxy", "--check")
    assert ran.returncode == 1
    assert "haproxy: refused by " in ran.stderr
    assert "/nowhere/api.pem" in ran.stderr


def test_check_without_the_engine_says_how_to_get_it(tmp_path: Path) -> None:
    site(tmp_path)
    fake = tmp_path / "empty"
    fake.mkdir()
    ran = run(tmp_path, "render", "traefik", "--check", path=str(fake))
    assert ran.returncode == 0
    assert "traefik has no checker" in ran.stderr


def test_usage_mistakes(tmp_path: Path) -> None:
    site(tmp_path)
    assert run(tmp_path, "render", "apache").returncode == 2
    assert run(tmp_path, "render", "haproxy", "--option", "socket").returncode == 2
    assert run(tmp_path, "render", "nginx", "--target-version", "2.8").returncode == 2
    named = run(tmp_path, "render", "envoy", "-o", "envoy.conf")  # which Envoy would not read as YAML
    assert (named.returncode, "-o envoy.yaml" in named.stderr) == (2, True)
    assert not (tmp_path / "envoy.conf").exists()
    ran = run(tmp_path, "render-haproxy", "--target-version", "1.5")
    assert ran.returncode == 3
    assert "2.4, 2.6, 2.8, 3.0" in ran.stderr


@pytest.mark.parametrize(("version", "is_verified"), [("2.4", False), ("2.6", True), ("2.8", True), ("3.0", False)])
def test_a_version_that_was_never_run_says_so(tmp_path: Path, version: str, is_verified: bool) -> None:
    site(tmp_path)
    ran = run(tmp_path, "render-haproxy", "--target-version", version)
    assert ran.returncode == 0
    assert ("not verified" in ran.stderr) is not is_verified
    assert ("not verified" in ran.stdout) is not is_verified


def test_what_operators_changed_is_rendered_when_it_is_asked_for(tmp_path: Path) -> None:
    site(tmp_path)
    intents = Intents((Intent(Kind.DRAIN, "ops", AT, node="c"), Intent(Kind.PAUSE, "ops", AT, reason="upgrade")))
    (tmp_path / "intents.json").write_bytes(encode(to_document(intents)))
    held = Remembered("b", 7, "2026-11-01T00:00:00Z", "ops", "told to")
    (tmp_path / "designations.json").write_bytes(encode({"designations": {"dns": asdict(held)}}))
    plain, changed = run(tmp_path, "render-haproxy"), run(tmp_path, "render-haproxy", "--with-intents")
    assert servers(plain.stdout, "route_ping")[0].split()[1] == "a"
    assert [line.split()[1] for line in servers(changed.stdout, "route_ping")] == ["b", "a", "c"]
    assert [line.split()[1] for line in servers(changed.stdout, "api") if "disabled" in line] == ["c"]
    assert "traffic is paused; no engine can be told" in changed.stderr


@pytest.mark.pg
async def test_a_designation_in_the_database_is_rendered_and_none_is_guessed_without_it(
    tmp_path: Path, database: str
) -> None:
    secret = tmp_path / "dsn"
    secret.touch(0o600)
    secret.write_text(database)
    shared = {"state": {"dir": str(tmp_path), "database": {"file": str(secret)}}, "cluster": "xtest"}
    site(tmp_path, designated={"dns": {"order": ["a", "b", "c"], "store": "postgres"}}, **shared)
    (tmp_path / "designations.json").write_text("{")  # not the store: nobody reads it

    async def rendered(*more: str) -> "subprocess.CompletedProcess[str]":
        return await asyncio.to_thread(run, tmp_path, "render-haproxy", *more)

    early = await rendered("--with-intents")
    assert (early.returncode, next(line.split()[1] for line in servers(early.stdout, "route_ping"))) == (0, "a")
    assert "dns: nobody was designated yet" in early.stderr
    store = PostgresStore("xtest", database)
    assert await store.swap("dns", 0, Remembered("b", 7, "2026-11-01T00:00:00Z", "ops", "told to"))
    await store.close()
    ran = await rendered("--with-intents")
    assert (ran.returncode, next(line.split()[1] for line in servers(ran.stdout, "route_ping"))) == (0, "b")
    assert "nobody" not in ran.stderr
    secret.write_text("postgresql://user:hush@127.0.0.1:9/x?sslmode=disable")
    away = await rendered("--with-intents")
    assert (away.returncode, away.stdout) == (4, "")
    assert "the database of the designations cannot be used" in away.stderr
    assert "hush" not in away.stderr
    assert (await rendered()).returncode == 0
    secret.unlink()
    unread = await rendered("--with-intents")
    assert (unread.returncode, unread.stdout) == (3, "")
    assert f"state.database: cannot read {secret}" in unread.stderr


def servers(text: str, backend: str) -> list[str]:
    section = text.partition(f"\nbackend {backend}\n")[2].partition("\nbackend ")[0]
    return [line.strip() for line in section.splitlines() if line.strip().startswith("server ")]


def test_a_manual_fail_over_is_left_to_its_operator(tmp_path: Path) -> None:
    site(tmp_path, designated={"dns": {"order": ["a", "b"], "failover": "manual"}})
    found = servers(run(tmp_path, "render-haproxy").stdout, "route_ping")
    assert [line.split()[1] for line in found] == ["a"]


def test_damaged_state_is_an_error_and_not_a_guess(tmp_path: Path) -> None:
    site(tmp_path)
    (tmp_path / "designations.json").write_text("{")
    ran = run(tmp_path, "render-haproxy", "--with-intents")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "who is designated cannot be known" in ran.stderr
