"""One health check of one node: a single HTTP request, judged by status and body, explained in words."""

import asyncio
import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from yarl import URL

from balancer import __version__

BODY_BYTES = 64 << 10  # more is not read
EXCERPT_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a healthy answer looks like. `json`: dotted path -> value. `body`: a text it has to contain."""

    statuses: tuple[int, ...] = (200,)
    json: Mapping[str, Any] = field(default_factory=dict)
    body: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to ask. `address` is literal (names are resolved before); `unix_path` stands in its place."""

    address: str
    port: int
    authority: str  # the Host field
    path: str
    unix_path: str = ""
    tls: ssl.SSLContext | None = None
    server_name: str = ""
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Result:
    """What a check found. `refused`: nobody listens, which counts at once. `document`: the JSON body, if it is one."""

    ok: bool
    text: str  # for people: "OK" or what is wrong
    duration_s: float = 0.0
    refused: bool = False
    status: int = 0
    document: Any = None


class HttpClient:
    """Sends single requests: no pooling, no redirect, no retry, no proxy. An async context."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "HttpClient":
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit=0, use_dns_cache=False),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={
                "User-Agent": f"arv-balance/{__version__} (health check)",
                "Accept": "application/json, */*;q=0.5",
            },
            skip_auto_headers=("Accept-Encoding",),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, target: Target, *, timeout_s: float, limit: int = BODY_BYTES) -> tuple[int, bytes]:
        """Return status and the first `limit` bytes of the body. Raises OSError or aiohttp.ClientError."""
        if self._session is None:
            raise RuntimeError("use it as an async context")
        if target.unix_path:
            async with aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(path=target.unix_path, force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                headers=self._session.headers,
                skip_auto_headers=("Accept-Encoding",),
            ) as session:
                return await _get(session, target, timeout_s, limit)
        return await _get(self._session, target, timeout_s, limit)


async def _get(session: aiohttp.ClientSession, target: Target, timeout_s: float, limit: int) -> tuple[int, bytes]:
    scheme = "https" if target.tls else "http"
    host = f"[{target.address}]" if ":" in target.address else target.address or "localhost"
    headers = {"Host": target.authority}
    if target.token:
        headers["Authorization"] = f"Bearer {target.token}"
    async with (
        asyncio.timeout(timeout_s),
        session.get(
            URL(f"{scheme}://{host}:{target.port or 80}{target.path}", encoded=True),
            headers=headers,
            allow_redirects=False,
            ssl=target.tls or True,
            server_hostname=target.server_name or None,
            timeout=aiohttp.ClientTimeout(total=None),  # the deadline above is the one
        ) as response,
    ):
        body = b""
        while len(body) < limit and (part := await response.content.read(limit - len(body))):
            body += part
        return response.status, body


async def check(client: HttpClient, target: Target, expect: Expectation, *, timeout_s: float) -> Result:
    """Ask once and judge the answer; every failure of the node is a `Result`, never an exception."""
    began = time.monotonic()
    try:
        status, body = await client.get(target, timeout_s=timeout_s)
    except (OSError, aiohttp.ClientError, ValueError) as exc:
        text, refused = explain_failure(exc, timeout_s)
        return Result(ok=False, text=text, duration_s=time.monotonic() - began, refused=refused)
    return judge(status, body, expect, token_sent=bool(target.token), duration_s=time.monotonic() - began)


def explain_failure(exc: BaseException, timeout_s: float) -> tuple[str, bool]:
    """Return words for a request that got no answer, and whether nobody listened at all."""
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return f"certificate not accepted: {exc.certificate_error}", False
    if isinstance(exc, aiohttp.ClientConnectorError):
        cause = exc.os_error
        if isinstance(cause, ConnectionRefusedError | FileNotFoundError):
            return "connection refused", True
        return f"cannot connect: {cause.strerror or cause}", False
    if isinstance(exc, TimeoutError):
        return f"no answer within {timeout_s:g} s", False
    if isinstance(exc, aiohttp.ServerDisconnectedError | ConnectionResetError):
        return "connection closed before the answer", False
    if isinstance(exc, aiohttp.ClientPayloadError):
        return "connection closed in the middle of the answer", False
    if isinstance(exc, aiohttp.ClientResponseError):
        return f"the answer is not HTTP: {_excerpt(exc.message)}", False
    return f"{type(exc).__name__}: {_excerpt(str(exc))}", False


def judge(status: int, body: bytes, expect: Expectation, *, token_sent: bool, duration_s: float) -> Result:
    """Decide whether an answer is a healthy one."""
    text = body.decode(errors="replace")
    document = _json(text)
    wrong = _wrong_status(status, text, expect, token_sent=token_sent) or _wrong_body(status, text, document, expect)
    return Result(ok=not wrong, text=wrong or "OK", duration_s=duration_s, status=status, document=document)


def _wrong_status(status: int, text: str, expect: Expectation, *, token_sent: bool) -> str:
    if status in expect.statuses:
        return ""
    if status == 404 and "disabled" in text:
        return "404 disabled: ManagementToken is not set on the node"
    if status == 401 and not token_sent:
        return "401: the check needs a token; set health.token"
    if status in {401, 403} and token_sent:
        return f"{status}: the node does not accept the token of health.token"
    wanted = " or ".join(map(str, expect.statuses))
    return f"answers {status} instead of {wanted}" + (f": {_excerpt(text)}" if text.strip() else "")


def _wrong_body(status: int, text: str, document: Any, expect: Expectation) -> str:
    for path, wanted in expect.json.items():
        if document is None:
            return f"answers {status}, but its body is not JSON: {_excerpt(text)}"
        found = lookup(document, path)
        if found != wanted or isinstance(found, bool) != isinstance(wanted, bool):
            error = lookup(document, "error")
            said = f"{path}={_excerpt(found if isinstance(found, str) else json.dumps(found))}"
            return f"answers {status}, but says {said}" + (f": {_excerpt(str(error))}" if error else "")
    if expect.body not in text:
        return f"answers {status}, but its body does not contain {expect.body!r}: {_excerpt(text)}"
    return ""


def lookup(document: Any, path: str) -> Any:
    """Return the value at a dotted path of JSON objects, None when there is none."""
    for name in path.split("."):
        if not isinstance(document, dict) or name not in document:
            return None
        document = document[name]
    return document


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _excerpt(text: str) -> str:
    clean = "".join(char if char.isprintable() else " " for char in text).strip()
    return clean if len(clean) <= EXCERPT_CHARACTERS else clean[: EXCERPT_CHARACTERS - 1] + "…"
