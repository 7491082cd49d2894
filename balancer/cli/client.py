"""The admin API from the command line: the standard library's HTTP client, because it starts fast."""

import http.client
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from balancer.cli.exits import CommandError, Exit

DEFAULT_SOCKET = "/run/arv-balance/admin.sock"
ENVIRONMENT = "ARV_BALANCE_ADMIN"
TOKEN_ENVIRONMENT = "ARV_BALANCE_TOKEN_FILE"  # noqa: S105 - the name of a variable
CONFIG_ENVIRONMENT = "ARV_BALANCE_CONFIG"
TIMEOUT_S = 10.0
RESTART_S = 3.0  # what a control process takes to be there again on a busy machine

Document = dict[str, Any]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class ProblemError(CommandError):
    """The admin API said no. `document` is its problem object."""

    def __init__(self, document: Document) -> None:
        code = {400: Exit.USAGE, 409: Exit.REFUSED, 422: Exit.CONFIG, 504: Exit.DEADLINE}.get(
            document.get("status", 0), Exit.NO
        )
        super().__init__(
            str(document.get("what", "the balancer refused")),
            why=str(document.get("why", "")),
            hint=str(document.get("try", "")),
            code=code,
        )
        self.document = document


class Client:
    """Calls of the admin API. `where`: `unix:/path`, a path, or `http://host:port` with a token."""

    def __init__(self, where: str, *, token: str = "") -> None:
        self.where = where
        self._token = token

    def get(self, path: str, *, timeout_s: float = TIMEOUT_S) -> Document:
        """Return the document at `path`."""
        return self.call("GET", path, timeout_s=timeout_s)

    def post(self, path: str, body: Document | None = None, *, timeout_s: float = TIMEOUT_S) -> Document:
        """Ask for a change and return the answer."""
        return self.call("POST", path, body or {}, timeout_s=timeout_s)

    def call(self, method: str, path: str, body: Document | None = None, *, timeout_s: float = TIMEOUT_S) -> Document:
        """Return the answer's document. Raises ProblemError when it is a refusal, CommandError when nobody answers."""
        connection = self._connection(timeout_s)
        give_up_at = time.monotonic() + min(timeout_s, RESTART_S)
        try:
            while True:
                try:
                    return _document(self._send(connection, method, path, body).read())
                except ConnectionRefusedError:  # the admin API starts anew; traffic does not notice
                    if time.monotonic() > give_up_at:
                        raise
                    connection.close()
                    time.sleep(0.1)
        except OSError as exc:
            raise self._unreachable(exc) from exc
        except http.client.HTTPException as exc:
            raise CommandError(
                f"{self.where} does not speak the admin API", why=repr(exc), code=Exit.UNREACHABLE
            ) from exc
        finally:
            connection.close()

    def lines(self, path: str) -> Iterator[Document]:
        """Yield the documents of an endless answer, one a line."""
        connection = self._connection(60.0)  # the other side sends an empty line every 15 s
        try:
            response = self._send(connection, "GET", path, None)
            for line in response:
                if line.strip():
                    yield _document(line)
        except OSError as exc:
            raise self._unreachable(exc) from exc
        finally:
            connection.close()

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        if self.where.startswith(("http://", "https://")):
            parts = urlsplit(self.where)
            kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
            try:
                return kind(parts.hostname or "localhost", parts.port, timeout=timeout_s)
            except ValueError as exc:
                raise CommandError(f"{self.where} is no address", why=str(exc), code=Exit.USAGE) from exc
        return _UnixConnection(self.where.removeprefix("unix:"), timeout_s)

    def _send(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: Document | None
    ) -> http.client.HTTPResponse:
        headers = {"Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection.request(method, path, None if body is None else json.dumps(body).encode(), headers)
        response = connection.getresponse()
        if response.status >= 400:
            raise ProblemError(_document(response.read()) | {"status": response.status})
        return response

    def _unreachable(self, exc: OSError) -> CommandError:
        why = {
            FileNotFoundError: "there is no such socket",
            PermissionError: "you may not open it",
            ConnectionRefusedError: "nobody listens there",
            TimeoutError: "no answer in time",
        }.get(type(exc), str(exc))
        if isinstance(exc, FileNotFoundError) and not self.where.startswith(("unix:", "/")):
            why = "it is taken as the path of a socket, which is not there; an address begins with http://"
        return CommandError(
            f"the balancer does not answer at {self.where}",
            why=why,
            hint="arv-balance serve, or name its admin socket: --admin unix:/path (ARV_BALANCE_ADMIN)",
            code=Exit.UNREACHABLE,
        )


def _document(raw: bytes) -> Document:
    try:
        found = json.loads(raw)
    except ValueError as exc:
        raise CommandError("the answer is not the admin API's", why=repr(raw[:80]), code=Exit.UNREACHABLE) from exc
    return found if isinstance(found, dict) else {"value": found}


def connect(admin: str | None, token_file: Path | None = None) -> Client:
    """Return a client for `--admin`, ARV_BALANCE_ADMIN, the socket that the configuration names, or the default one."""
    token_path = token_file or (Path(os.environ[TOKEN_ENVIRONMENT]) if os.environ.get(TOKEN_ENVIRONMENT) else None)
    try:
        token = token_path.read_text().strip() if token_path else ""
    except OSError as exc:
        raise CommandError(f"the token in {token_path} cannot be read", why=str(exc), code=Exit.USAGE) from exc
    return Client(admin or os.environ.get(ENVIRONMENT) or _configured() or f"unix:{DEFAULT_SOCKET}", token=token)


def _configured() -> str:
    """Return the admin socket of the configuration that `serve` would use here, "" when it names none."""
    named = os.environ.get(CONFIG_ENVIRONMENT)
    for path in (Path(named),) if named else (Path("arv-balance.yml"), Path("/etc/arv-balance/config.yml")):
        if path.is_file():
            socket_path = _admin_socket(path)
            return f"unix:{socket_path}" if socket_path else ""
    return ""


def _admin_socket(path: Path) -> str:
    """Read `admin.socket` without the YAML loader, which alone would double the start of `status`.

    Only the plain forms are understood (a block mapping or `admin: {socket: ...}`); what is fancier needs --admin.
    """
    import re

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    section = re.search(r"^admin:[^\n]*(?:\n(?:[ \t]+[^\n]*|[ \t]*))*", text, re.MULTILINE)
    found = re.search(r"\bsocket:[ \t]*[\"']?(/[^\s\"',}#]+)", section[0]) if section else None
    return found[1] if found else ""
