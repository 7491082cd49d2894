"""Asks a node: single GETs, how long it keeps an idle connection, the certificate it shows. Nothing else is sent."""

import asyncio
import json
import re
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self, TypeVar

import aiohttp
from yarl import URL

from balancer import __version__
from balancer.config.certificates import describe
from balancer.control.doctor.facts import Certificate, Idle, Reply
from balancer.errors import ConfigError
from balancer.model import Node

K = TypeVar("K")
T = TypeVar("T")
BODY_BYTES = 8 << 20  # a discovery document is some hundred kilobytes
_SPARE_S = 0.2
_PROMISE = re.compile(rb"\r\nkeep-alive:[^\r\n]*\btimeout=(\d{1,9})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Address:
    """How a node is reached. `tls` None: plain."""

    node: Node
    authority: str
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    @property
    def server_name(self) -> str:
        """The name that its certificate has to have."""
        return self.node.tls.server_name if self.node.tls else ""


class Asker:
    """Holds the deadline for everything it asks. An async context. `deadline_s`: on the loop's clock."""

    def __init__(self, deadline_s: float, *, wall: Callable[[], float]) -> None:
        self._deadline_s = deadline_s
        self._wall = wall
        self._sessions: list[aiohttp.ClientSession] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session in self._sessions:
            await session.close()

    async def get(self, address: Address, path: str, fields: Mapping[str, str]) -> Reply:
        """Return the answer, or why there is none."""
        host = f"[{address.node.host}]" if ":" in address.node.host else address.node.host or "localhost"
        url = URL(f"{'https' if address.tls else 'http'}://{host}:{address.node.port or 80}{path}", encoded=True)
        began = self._wall()
        try:
            async with asyncio.timeout_at(self._deadline_s):
                return await self._get(self._session(address), address, url, fields)
        except TimeoutError:
            return Reply(fault=f"no answer within {self._wall() - began:.1f} s")
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            return Reply(fault=_words(exc))

    async def _get(
        self, session: aiohttp.ClientSession, address: Address, url: URL, fields: Mapping[str, str]
    ) -> Reply:
        began = self._wall()
        headers = {"Host": address.authority, "User-Agent": f"arv-balance/{__version__} (doctor)", **fields}
        async with session.get(
            url, headers=headers, allow_redirects=False, ssl=address.tls or True,
            server_hostname=address.server_name or None, timeout=aiohttp.ClientTimeout(total=None),
        ) as response:  # fmt: skip
            ended = self._wall()  # the Date was written by now
            body = b""
            while len(body) < BODY_BYTES and (part := await response.content.read(BODY_BYTES - len(body))):
                body += part
            found: dict[str, tuple[str, ...]] = {}
            for name, value in response.headers.items():
                found[name.lower()] = (*found.get(name.lower(), ()), value)
            text = body.decode(errors="replace")
            return Reply("", response.status, found, text, _json(text), began, ended)

    def _session(self, address: Address) -> aiohttp.ClientSession:
        connector: aiohttp.BaseConnector
        if address.node.unix_path:
            connector = aiohttp.UnixConnector(address.node.unix_path, force_close=True)
        else:
            connector = aiohttp.TCPConnector(force_close=True, limit=0)
        session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        self._sessions.append(session)
        return session

    async def idle(self, address: Address, path: str, fields: Mapping[str, str], wanted_s: float) -> Idle:
        """Return how long the node keeps a connection after an answer, watching for at most `wanted_s`."""
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {address.authority}",
            *(f"{key}: {value}" for key, value in fields.items()),
        ]
        try:
            async with asyncio.timeout_at(self._deadline_s), _opened(address, address.tls) as (reader, writer):
                writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
                head = await reader.readuntil(b"\r\n\r\n")
                if b"\r\nconnection: close" in head.lower():
                    return Idle(fault="it closes the connection after each answer")
                idle = await self._watch(reader, wanted_s)
                promised = _PROMISE.search(head)
                return replace(idle, promised_s=float(promised[1])) if promised else idle
        except TimeoutError:
            return Idle(fault="no answer in time")
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as exc:
            return Idle(fault=_words(exc))

    async def _watch(self, reader: asyncio.StreamReader, wanted_s: float) -> Idle:
        loop = asyncio.get_running_loop()
        began = last = loop.time()
        until = min(began + wanted_s, self._deadline_s - _SPARE_S)
        try:
            async with asyncio.timeout_at(until):
                while await reader.read(1 << 16):
                    last = loop.time()  # the rest of the answer
        except TimeoutError:
            return Idle(watched_s=max(0.0, until - last))
        except OSError:
            return Idle(watched_s=loop.time() - last, closed_s=loop.time() - last)
        return Idle(watched_s=loop.time() - last, closed_s=loop.time() - last)

    async def certificate(self, address: Address) -> Certificate | None:
        """Return the certificate that an `https` node shows, and whether our settings accept it."""
        if address.tls is None:
            return None
        lenient = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        lenient.check_hostname, lenient.verify_mode = False, ssl.CERT_NONE
        name = address.node.name
        try:
            async with asyncio.timeout_at(self._deadline_s), _opened(address, lenient) as (_, writer):
                der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            shown = await asyncio.to_thread(describe, ssl.DER_cert_to_PEM_cert(der or b"").encode(), name)
        except TimeoutError:
            return Certificate(name, "no answer in time")
        except (OSError, ValueError, ConfigError) as exc:
            return Certificate(name, _words(exc))
        return Certificate(name, await self._refusal(address), shown.names, shown.not_after)

    async def _refusal(self, address: Address) -> str:
        try:
            async with asyncio.timeout_at(self._deadline_s), _opened(address, address.tls):
                return ""
        except ssl.SSLCertVerificationError as exc:
            return exc.verify_message or str(exc)
        except (TimeoutError, OSError) as exc:
            return _words(exc)


class _opened:  # noqa: N801 - reads as a verb where it is used
    """An open connection, closed without waiting for the peer."""

    def __init__(self, address: Address, tls: ssl.SSLContext | None) -> None:
        self._address, self._tls = address, tls
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        node, name = self._address.node, self._address.server_name or None
        tls_name = (name or node.host) if self._tls else None
        if node.unix_path:
            reader, writer = await asyncio.open_unix_connection(node.unix_path, ssl=self._tls, server_hostname=tls_name)
        else:
            reader, writer = await asyncio.open_connection(
                node.host, node.port, ssl=self._tls, server_hostname=tls_name
            )
        self._writer = writer
        return reader, writer

    async def __aexit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.transport.abort()


async def together(work: Mapping[K, Awaitable[T]]) -> dict[K, T]:
    """Await all at once; return the results by key."""

    async def one(item: Awaitable[T]) -> T:
        return await item

    async with asyncio.TaskGroup() as group:
        tasks = {key: group.create_task(one(item)) for key, item in work.items()}
    return {key: task.result() for key, task in tasks.items()}


def wall_clock() -> float:
    """Return Unix time; the one thing that a Date can be compared with."""
    return time.time()  # noqa: TID251


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _words(exc: BaseException) -> str:
    cause = getattr(exc, "os_error", None) or exc
    if isinstance(cause, ConnectionRefusedError):
        return "connection refused"
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return f"certificate not accepted: {exc.certificate_error}"
    return str(getattr(cause, "strerror", None) or cause) or type(exc).__name__
