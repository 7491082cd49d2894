r"""An API node that is not ours: it behaves as a classic API server does, written for a site that has one of it.

    python examples/foreign_node.py --name api1 --port 9001 --store /tmp/site.db --lock-dir /tmp/host1 \
        --update-command 'arv-balance dns hook -c dns.yml --hostname %{hostname} --ip %{ip_address}'

Several of them on one --store are a site whose nodes know nothing of each other, and bring what such nodes bring:

* the discovery document has a `generatedAt` of each process;
* the periodic job, a sweep of old log rows, is guarded by a file lock in --lock-dir: it runs once a host, not a site;
* a ping (`POST /arvados/v1/nodes/UUID/ping`) gives a compute node slot, name and address, and runs the update command
  before its transaction ends; what fails there is logged, and the ping succeeds nevertheless.

The command is split into words once; `%{hostname}` and `%{ip_address}` are filled in word by word, and no shell sees
them. `POST`, `GET` and `DELETE /arvados/v1/nodes` make, list and delete node records, with `Authorization: Bearer` and
the token of --api-token-file. The store is SQLite, in place of the database that such servers share.

Needs only the standard library. Listens on loopback unless told otherwise.
"""

import argparse
import fcntl
import hmac
import ipaddress
import json
import posixpath
import re
import secrets
import shlex
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

DISCOVERY = "discovery/v1/apis/arvados/v1/rest"
UNUSED = "127.40.4.0"  # the classic word for "this name has no address"
SLOTS = range(1, 65)
COMMAND_TIMEOUT_S = 30.0
BODY_BYTES = 64 << 10
SCHEMA = """
CREATE TABLE IF NOT EXISTS nodes (uuid TEXT PRIMARY KEY, slot_number INTEGER UNIQUE, hostname TEXT, ip_address TEXT,
 first_ping_at TEXT, last_ping_at TEXT, ping_secret TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS logs (at REAL NOT NULL, node TEXT NOT NULL, event TEXT NOT NULL, subject TEXT NOT NULL);
"""
LOG = "INSERT INTO logs VALUES (?, ?, ?, ?)"


class RefusedError(Exception):
    """What is answered in place of a result."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Store:
    """The file that all nodes of the site share."""

    path: Path

    def create(self) -> None:
        """Make the tables when they are missing."""
        with self.path.with_suffix(".lock").open("w") as turn, closing(sqlite3.connect(self.path, timeout=30)) as db:
            fcntl.flock(turn, fcntl.LOCK_EX)  # of nodes that start at once: here SQLite gives up instead of waiting
            db.execute("PRAGMA journal_mode=WAL")  # the list is read while a ping waits for its command
            db.executescript(SCHEMA)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection that nobody else writes beside; committed at the end, rolled back by an exception."""
        with closing(sqlite3.connect(self.path, timeout=60, isolation_level=None)) as db:
            db.row_factory = sqlite3.Row
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def read(self, statement: str, *values: object) -> list[sqlite3.Row]:
        """Return the rows of a query."""
        with closing(sqlite3.connect(self.path, timeout=30)) as db:
            db.row_factory = sqlite3.Row
            return db.execute(statement, values).fetchall()


@dataclass(frozen=True, slots=True)
class UpdateCommand:
    """The operator's command for a name that changed. Without words nothing is run."""

    words: tuple[str, ...]

    def run(self, hostname: str, address: str) -> None:
        """Run it; a failure is said on standard error and changes nothing."""
        if not self.words:
            return
        values = {"hostname": hostname, "ip_address": address}
        command = [re.sub(r"%\{(hostname|ip_address)\}", lambda found: values[found[1]], word) for word in self.words]
        try:
            subprocess.run(command, stdin=subprocess.DEVNULL, timeout=COMMAND_TIMEOUT_S, check=True)
        except (OSError, subprocess.SubprocessError) as exc:
            print(f"update command for {hostname}: {exc}", file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Machines:
    """The records of compute nodes, as one API node sees them."""

    node: str
    store: Store
    update: UpdateCommand

    def create(self, hostname: str | None) -> dict[str, Any]:
        """Make a record; its ping secret is in the answer."""
        if hostname is not None and not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", hostname):
            raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, "not a hostname")
        uuid = "zzzzz-7ekkf-" + "".join(secrets.choice("0123456789abcdefghijklmnopqrstuvwxyz") for _ in range(15))
        row = (uuid, hostname, secrets.token_hex(16))
        with self.store.transaction() as db:
            db.execute("INSERT INTO nodes (uuid, hostname, ping_secret) VALUES (?, ?, ?)", row)
        return self.get(uuid)

    def get(self, uuid: str) -> dict[str, Any]:
        """Return a record."""
        rows = self.store.read("SELECT * FROM nodes WHERE uuid = ?", uuid)
        if not rows:
            raise RefusedError(HTTPStatus.NOT_FOUND, "Path not found")
        return record(rows[0])

    def list(self, limit: int, offset: int) -> dict[str, Any]:
        """Return a page of all records."""
        rows = self.store.read("SELECT * FROM nodes ORDER BY uuid LIMIT ? OFFSET ?", limit, offset)
        count = self.store.read("SELECT count(*) FROM nodes")[0][0]
        return {"items": [record(row) for row in rows], "items_available": count}

    def delete(self, uuid: str) -> dict[str, Any]:
        """Forget a record; its name has no address any more."""
        found = self.get(uuid)
        with self.store.transaction() as db:
            db.execute("DELETE FROM nodes WHERE uuid = ?", (uuid,))
            if found["hostname"]:
                self.update.run(found["hostname"], UNUSED)
        return found

    def ping(self, uuid: str, secret: str, address: str) -> dict[str, Any]:
        """Note that a compute node is there; the first ping gives it slot, name and address."""
        now = datetime.now(UTC)
        with self.store.transaction() as db:
            if (row := db.execute("SELECT * FROM nodes WHERE uuid = ?", (uuid,)).fetchone()) is None:
                raise RefusedError(HTTPStatus.NOT_FOUND, "Path not found")
            if not hmac.compare_digest(row["ping_secret"].encode(), secret.encode()):
                raise RefusedError(HTTPStatus.UNAUTHORIZED, "Incorrect ping_secret")
            db.execute("UPDATE nodes SET last_ping_at = ? WHERE uuid = ?", (now.isoformat(), uuid))
            db.execute(LOG, (now.timestamp(), self.node, "ping", uuid))
            if row["ip_address"] is None:
                self._arrive(db, row, address, now.isoformat())
        return self.get(uuid)

    def _arrive(self, db: sqlite3.Connection, row: sqlite3.Row, address: str, now: str) -> None:
        slot = row["slot_number"] or free_slot(db)
        hostname = row["hostname"] or f"compute{slot}"
        losers = db.execute("SELECT hostname FROM nodes WHERE ip_address = ?", (address,)).fetchall()
        db.execute("UPDATE nodes SET ip_address = NULL WHERE ip_address = ?", (address,))
        db.execute(
            "UPDATE nodes SET slot_number = ?, hostname = ?, ip_address = ?, first_ping_at = coalesce(first_ping_at, ?)"
            " WHERE uuid = ?",
            (slot, hostname, address, now, row["uuid"]),
        )
        for loser in losers:
            self.update.run(loser["hostname"], UNUSED)
        self.update.run(hostname, address)  # before the commit, as the classic server does


def free_slot(db: sqlite3.Connection) -> int:
    """Return the smallest slot that no record has."""
    taken = {row[0] for row in db.execute("SELECT slot_number FROM nodes")}
    free = next((slot for slot in SLOTS if slot not in taken), None)
    if free is None:
        raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, "No available node slots")
    return free


def record(row: sqlite3.Row) -> dict[str, Any]:
    """Return what an administrator sees of a row."""
    fields = dict(row)
    return {"domain": "", "properties": {}, "info": {"ping_secret": fields.pop("ping_secret")}, **fields}


@dataclass(frozen=True, slots=True)
class Sweep:
    """The periodic job: deletes log rows older than `keep_s`, every `every_s`; its lock is a file of this host."""

    node: str
    store: Store
    lock: Path
    every_s: float
    keep_s: float

    def look(self) -> bool:
        """Run when it is due here and nobody on this host does; return whether it ran."""
        with self.lock.open("a+", encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            file.seek(0)
            now = datetime.now(UTC).timestamp()
            if now - float(file.read() or 0) < self.every_s:
                return False
            with self.store.transaction() as db:
                db.execute("DELETE FROM logs WHERE at < ?", (now - self.keep_s,))
                db.execute(LOG, (now, self.node, "sweep", str(self.lock.parent)))
            file.truncate(0)
            file.write(str(now))
            return True

    def run(self) -> None:
        """Look for ever."""
        pause = threading.Event()
        while not pause.wait(self.every_s / 4):
            try:
                self.look()
            except (OSError, sqlite3.Error) as exc:
                print(f"sweep: {exc}", file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Node:
    """One API node. Without a management token health and metrics are off; without an API token the list is."""

    name: str
    machines: Machines
    version: str
    management_token: str = field(default="", repr=False)
    api_token: str = field(default="", repr=False)
    generated_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat())

    def answer(
        self, method: str, path: str, params: Mapping[str, str], fields: Mapping[str, str | None], peer: str
    ) -> object:
        """Return what is answered: text, or what becomes JSON. `path`: decoded, without `.`, `..` and `//`."""
        match [method, *path.strip("/").split("/")]:
            case ["GET", "_health", "ping"]:
                self._wants(self.management_token, fields)
                return {"health": "OK"}
            case ["GET", "metrics"]:
                self._wants(self.management_token, fields)
                return "arvados_max_concurrent_requests 64\n"
            case ["GET", *segments] if "/".join(segments) == DISCOVERY:
                return self._discovery()
            case ["GET", "arvados", "v1", "config"]:
                return {"ClusterID": "zzzzz"}
            case ["POST" | "GET", "arvados", "v1", "nodes", uuid, "ping"]:
                address = params.get("local_ipv4") or (fields["x-forwarded-for"] or peer).split(",")[-1].strip()
                return self.machines.ping(uuid, params.get("ping_secret", ""), checked(address))
            case [_, "arvados", "v1", "nodes", *rest]:
                self._wants(self.api_token, fields)
                return self._records(method, rest, params)
            case _:
                raise RefusedError(HTTPStatus.NOT_FOUND, "Path not found")

    def _records(self, method: str, rest: list[str], params: Mapping[str, str]) -> object:
        match [method, *rest]:
            case ["GET"]:
                return self.machines.list(number(params, "limit", 100), number(params, "offset", 0))
            case ["POST"]:
                return self.machines.create(params.get("hostname"))
            case ["DELETE", uuid]:
                return self.machines.delete(uuid)
            case _:
                raise RefusedError(HTTPStatus.NOT_FOUND, "Path not found")

    def _wants(self, token: str, fields: Mapping[str, str | None]) -> None:
        if not token:
            raise RefusedError(HTTPStatus.NOT_FOUND, "disabled")
        given = fields["authorization"]
        if given is None:
            raise RefusedError(HTTPStatus.UNAUTHORIZED, "authorization required")
        if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            raise RefusedError(HTTPStatus.FORBIDDEN, "authorization error")

    def _discovery(self) -> dict[str, Any]:
        methods: dict[str, Any] = {name: {} for name in ("create", "delete", "get", "list", "ping")}
        return {
            "generatedAt": self.generated_at,
            "packageVersion": self.version,
            "resources": {"nodes": {"methods": methods}},
        }


def checked(address: str) -> str:
    """Return an address in its usual spelling."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, "not an address") from None


def number(params: Mapping[str, str], name: str, default: int) -> int:
    """Return a parameter that counts something; what is no number counts as missing."""
    text = params.get(name, "")
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else default


class Handler(BaseHTTPRequestHandler):
    """One connection. Paths are decoded as Rails does: every spelling of a route is that route."""

    node: Node  # of the subclass that main makes
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer is one write
    timeout = 60  # of an idle connection

    def do_GET(self) -> None:
        """Answer; also for POST and DELETE."""
        node = self.node
        try:
            parts = urlsplit(f"http://node{self.path}" if self.path.startswith("/") else self.path)
            path = posixpath.normpath(unquote(parts.path)).removesuffix(".json")
            params = dict(parse_qsl(parts.query) + parse_qsl(self._body()))
            fields = {name: self.headers.get(name) for name in ("authorization", "x-forwarded-for")}
            content = node.answer(self.command, path, params, fields, self.client_address[0])
            self._send(HTTPStatus.OK, content, node.name)
        except RefusedError as exc:
            self._send(exc.status, {"errors": [str(exc)]}, node.name)
        except sqlite3.Error as exc:
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, {"errors": [f"store: {exc}"]}, node.name)

    do_POST = do_DELETE = do_GET  # noqa: N815 - their names in the base class

    def _body(self) -> str:
        length = self.headers.get("Content-Length", "0")
        is_counted = "Transfer-Encoding" not in self.headers and re.fullmatch("[0-9]{1,9}", length)
        if not is_counted or int(length) > BODY_BYTES:
            self.close_connection = True
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body needs a length, at most {BODY_BYTES}")
        return self.rfile.read(int(length)).decode("utf-8", "replace")

    def _send(self, status: HTTPStatus, content: object, node: str) -> None:
        data = content.encode() if isinstance(content, str) else json.dumps(content).encode() + b"\n"
        self.send_response(status)
        self.send_header("X-Node", node)
        if given := self.headers.get("X-Request-Id"):
            self.send_header("X-Request-Id", given)
        self.send_header("Content-Type", "text/plain" if isinstance(content, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
        """Say nothing: a target may have a ping secret in it."""


def token(path: Path | None) -> str:
    """Return the first line of a file, "" without one."""
    return path.read_text(encoding="utf-8").partition("\n")[0].strip() if path else ""


def main() -> None:
    """Run the node until it is killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="node", help="its name, in the X-Node field and the log")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9001)
    parser.add_argument("--store", type=Path, required=True, help="SQLite file that the nodes share; made if missing")
    parser.add_argument("--lock-dir", type=Path, required=True, help="directory of the host's lock; made if missing")
    parser.add_argument("--update-command", type=shlex.split, default=[], help="command for a name that changed")
    parser.add_argument("--management-token-file", type=Path, help="file with the token of /_health/ping and /metrics")
    parser.add_argument("--api-token-file", type=Path, help="file with the token of /arvados/v1/nodes")
    parser.add_argument("--version", default="2.0.4", help="what the discovery document says")
    parser.add_argument("--sweep-every", type=float, default=3600.0, metavar="SECONDS")
    parser.add_argument("--keep-logs", type=float, default=14 * 86400.0, metavar="SECONDS")
    options = parser.parse_args()
    store = Store(options.store)
    store.create()
    options.lock_dir.mkdir(parents=True, exist_ok=True)
    sweep = Sweep(options.name, store, options.lock_dir / "sweep.lock", options.sweep_every, options.keep_logs)
    sweep.look()
    threading.Thread(target=sweep.run, daemon=True).start()
    machines = Machines(options.name, store, UpdateCommand(tuple(options.update_command)))
    tokens = token(options.management_token_file), token(options.api_token_file)
    node = Node(options.name, machines, options.version, *tokens)
    handler = type("NodeHandler", (Handler,), {"node": node})
    server = ThreadingHTTPServer((options.host, options.port), handler)
    print(f"{options.name} listens on {options.host}:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
