"""Real name servers on loopback ports: BIND and Knot, each with its own folder, key and zones."""

import base64
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dnsupdate.keys import Key
from tests.support.ports import free_port
from tests.support.programs import need

KEY = Key("upd.", "hmac-sha256", b"0123456789abcdef0123456789abcdef")
OTHER_KEY = Key("other.", "hmac-sha256", b"fedcba9876543210fedcba9876543210")
CLOSED, LIMITED, SPOILT = "closed.example.", "limited.example.", "spoilt.example."  # no updates; only A; no journal
EXAMPLES = Path(__file__).parents[2] / "examples" / "dns"
PDNS_SCHEMA = Path("/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql")
START_DEADLINE_S = 30.0


def key_text(key: Key) -> str:
    secret = base64.b64encode(key.secret).decode()
    return f'key "{key.name.rstrip(".")}" {{ algorithm {key.algorithm}; secret "{secret}"; }};\n'


def write_key(folder: Path, key: Key = KEY) -> Path:
    path = folder / "upd.key"
    path.write_text(key_text(key))
    path.chmod(0o600)
    return path


def zone_text(zone: str) -> str:
    return f"$TTL 60\n@ IN SOA localhost. hostmaster.{zone} 1 3600 600 86400 5\n@ IN NS localhost.\n"


@dataclass
class NameServer:
    """A running server."""

    kind: str
    folder: Path
    port: int
    command: list[str]
    zones: tuple[str, ...]
    process: "subprocess.Popen[bytes] | None" = None
    log: Path = field(default_factory=Path)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, cwd=self.folder)
        end = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            found = self.dig(self.zones[-1], "SOA")
            if found:
                return
            time.sleep(0.05)
        raise RuntimeError(f"{self.kind} did not start:\n{self.log.read_text()[-3000:]}")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is None:
            return
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(how)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        self.process = None

    def signal(self, how: signal.Signals) -> None:
        """Send a signal; after SIGSTOP wait until every thread stands still, which may take a while."""
        assert self.process is not None
        self.process.send_signal(how)
        end = time.monotonic() + START_DEADLINE_S
        while how == signal.SIGSTOP and not self._is_stopped():
            if time.monotonic() > end:
                raise RuntimeError(f"{self.kind} does not stop")
            time.sleep(0.001)

    def _is_stopped(self) -> bool:
        assert self.process is not None
        stats = Path(f"/proc/{self.process.pid}/task").glob("*/stat")
        return all(stat.read_text().rpartition(")")[2].split()[0] == "T" for stat in stats)

    def dig(self, name: str, rdtype: str = "A", *more: str) -> list[str]:
        """The answer's lines, as `dig +short` prints them."""
        done = subprocess.run(
            ["dig", "@127.0.0.1", "-p", str(self.port), "+short", "+norec", "+tries=1", "+time=5", *more, name, rdtype],
            capture_output=True,
            text=True,
            check=False,
        )
        return [line for line in done.stdout.splitlines() if line and not line.startswith(";")]

    def transfer(self, zone: str) -> set[str]:
        """All records of a zone but the SOA as `name ttl type data`, by dig with the key."""
        key = base64.b64encode(KEY.secret).decode()
        done = subprocess.run(
            ["dig", "@127.0.0.1", "-p", str(self.port), "-y", f"{KEY.algorithm}:upd:{key}", "+noall", "+answer",
             "+onesoa", zone, "AXFR"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        found = set()
        for line in done.stdout.splitlines():
            name, ttl, _, rdtype, data = line.split(None, 4)
            if rdtype not in ("SOA", "NS", "TSIG"):
                found.add(f"{name} {ttl} {rdtype} {data}")
        return found

    def control(self, *words: str) -> str:
        """Run rndc or knotc."""
        tool = ["rndc", "-c", str(self.folder / "rndc.conf")] if self.kind == "bind" else (
            ["knotc", "-c", str(self.folder / "knot.conf"), "-b"])  # fmt: skip
        done = subprocess.run([*tool, *words], capture_output=True, text=True, check=False)
        return done.stdout + done.stderr


def bind(folder: Path, zones: Sequence[str], *, extra: str = "") -> NameServer:
    """BIND with one update key for all zones, and one key that it knows and that may do nothing."""
    port, control = free_port(), free_port()
    (folder / "data" / f"{SPOILT}zone.jnl").mkdir(parents=True)
    for zone in (*zones, CLOSED, LIMITED, SPOILT):
        (folder / "data" / f"{zone}zone").write_text(zone_text(zone))
    rndc = Key("rndc.", "hmac-sha256", b"rndc-rndc-rndc-rndc-rndc-rndc-rn")
    (folder / "rndc.conf").write_text(
        key_text(rndc) + f'options {{ default-key "rndc"; default-server 127.0.0.1; default-port {control}; }};\n'
    )
    conf = f"""
{key_text(KEY)}{key_text(OTHER_KEY)}{key_text(rndc)}
options {{
  directory "{folder / "data"}"; pid-file "{folder / "named.pid"}"; session-keyfile none;
  listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
  recursion no; dnssec-validation no; notify no; allow-transfer {{ key upd; }}; querylog no;
  allow-query {{ any; }}; empty-zones-enable no; minimal-responses yes;
}};
controls {{ inet 127.0.0.1 port {control} allow {{ 127.0.0.1; }} keys {{ rndc; }}; }};
"""
    policies = dict.fromkeys(zones, "ANY") | {LIMITED: "A", SPOILT: "ANY"}
    for zone in (*policies, CLOSED):
        policy = f"update-policy {{ grant upd zonesub {policies[zone]}; }};" if zone in policies else ""
        conf += f'zone "{zone}" {{ type primary; file "{zone}zone"; {policy} {extra} }};\n'
    (folder / "named.conf").write_text(conf)
    named = shutil.which("named") or "/usr/sbin/named"
    return NameServer(
        "bind",
        folder,
        port,
        [named, "-g", "-n", "1", "-c", str(folder / "named.conf")],
        tuple(zones),
        log=folder / "log",
    )


def secondary(folder: Path, zone: str, primary: int, *, forwards: bool) -> NameServer:
    """A BIND that transfers one zone from a primary's port; `forwards`: it hands updates on."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    forwarding = "allow-update-forwarding { any; };" if forwards else ""
    (folder / "named.conf").write_text(f"""
{key_text(KEY)}
options {{
  directory "{folder}"; pid-file none; session-keyfile none; listen-on-v6 {{ none; }};
  listen-on port {port} {{ 127.0.0.1; }}; recursion no; dnssec-validation no; empty-zones-enable no;
}};
controls {{ }};
zone "{zone}" {{ type secondary; file "zone"; primaries {{ 127.0.0.1 port {primary} key upd; }}; {forwarding} }};
""")
    command = [shutil.which("named") or "/usr/sbin/named", "-g", "-n", "1", "-c", str(folder / "named.conf")]
    return NameServer("bind", folder, port, command, (zone,), log=folder / "log")


def knot(folder: Path, zones: Sequence[str]) -> NameServer:
    """Knot with one update key for all zones, and one key that it knows and that may do nothing."""
    port = free_port()
    (folder / "data").mkdir(parents=True)
    for zone in (*zones, CLOSED, LIMITED):
        (folder / "data" / f"{zone}zone").write_text(zone_text(zone))
    acls = {CLOSED: "read", LIMITED: "limited, read"}
    keys = "".join(
        f"  - id: {key.name.rstrip('.')}\n    algorithm: {key.algorithm}\n"
        f"    secret: {base64.b64encode(key.secret).decode()}\n"
        for key in (KEY, OTHER_KEY)
    )
    conf = (
        f"server:\n    rundir: {folder}\n    listen: 127.0.0.1@{port}\n    background-workers: 1\n    tcp-workers: 1\n"
        f"    udp-workers: 1\nlog:\n  - target: stdout\n    any: info\ndatabase:\n    storage: {folder / 'data'}\n"
        f"    journal-db-max-size: 32M\n"
        f"key:\n{keys}acl:\n  - id: upd\n    key: upd\n    action: [update, transfer]\n"
        "  - id: read\n    key: upd\n    action: transfer\n"
        "  - id: limited\n    key: upd\n    action: update\n    update-type: A\n"
        f"template:\n  - id: default\n    storage: {folder / 'data'}\n    acl: [upd]\n    zonefile-sync: -1\n"
        f"    journal-content: all\n    zonefile-load: whole\nzone:\n"
        + "".join(
            f"  - domain: {zone}\n    file: {zone}zone\n" + (f"    acl: [{acls[zone]}]\n" if zone in acls else "")
            for zone in (*zones, *acls)
        )
    )
    (folder / "knot.conf").write_text(conf)
    knotd = shutil.which("knotd") or "/usr/sbin/knotd"
    return NameServer("knot", folder, port, [knotd, "-c", str(folder / "knot.conf")], tuple(zones), log=folder / "log")


def powerdns(folder: Path, zones: Sequence[str]) -> NameServer:
    """PowerDNS on SQLite with one update key for all zones, and one key that it knows and that may do nothing."""
    port, server, tool = free_port(), need("pdns_server"), need("pdnsutil")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pdns.conf").write_text(
        f"launch=gsqlite3\ngsqlite3-database={folder / 'zones.db'}\nlocal-address=127.0.0.1\nlocal-port={port}\n"
        f"socket-dir={folder}\ndnsupdate=yes\nallow-dnsupdate-from=127.0.0.0/8\n"
        "default-soa-content=localhost. hostmaster.@ 0 3600 600 86400 5\nguardian=no\ndaemon=no\n"
        "security-poll-suffix=\ncache-ttl=0\nquery-cache-ttl=0\nnegquery-cache-ttl=0\nzone-cache-refresh-interval=0\n"
    )
    with closing(sqlite3.connect(folder / "zones.db")) as made:
        made.executescript(PDNS_SCHEMA.read_text())

    def pdnsutil(*words: str) -> None:
        done = subprocess.run(
            [tool, f"--config-dir={folder}", *words], capture_output=True, text=True, check=False, cwd=folder
        )
        assert done.returncode == 0, done.stdout + done.stderr

    for key in (KEY, OTHER_KEY):
        pdnsutil("import-tsig-key", key.name.rstrip("."), key.algorithm, base64.b64encode(key.secret).decode())
    pdnsutil("create-zone", CLOSED.rstrip("."), "localhost")
    for right, key in (("TSIG-ALLOW-DNSUPDATE", OTHER_KEY), ("TSIG-ALLOW-AXFR", KEY)):
        pdnsutil("set-meta", CLOSED.rstrip("."), right, key.name.rstrip("."))
    for zone in zones:
        pdnsutil("create-zone", zone.rstrip("."), "localhost")
        _run_powerdns_example(folder, tool, zone.rstrip("."))
    command = [server, f"--config-dir={folder}"]
    return NameServer("powerdns", folder, port, command, tuple(zones), log=folder / "log")


def _run_powerdns_example(folder: Path, tool: str, zone: str) -> None:
    """Give the rights as the example does it, with loopback as the senders' network."""
    script = (EXAMPLES / "powerdns.sh").read_text().replace("192.0.2.0/24", "127.0.0.0/8")
    wrapper = folder / "bin" / "pdnsutil"
    wrapper.parent.mkdir(exist_ok=True)
    wrapper.write_text(f'#!/bin/sh\nexec {tool} --config-dir={folder} "$@"\n')
    wrapper.chmod(0o755)
    done = subprocess.run(
        ["sh", "-s", zone, base64.b64encode(KEY.secret).decode()],
        input=script, capture_output=True, text=True, check=False, cwd=folder,
        env={**os.environ, "PATH": f"{wrapper.parent}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def running(server: NameServer) -> Iterator[NameServer]:
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)
