"""The RFC 2136 client: one TCP connection to one server, kept open, many messages on it at once.

Nothing here decides: an exchange ends in a `Reply`, whatever happened, and `diagnosis` says what that means.
"""

import asyncio
import errno
import secrets
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from dnsupdate.diagnosis import Context, Diagnosis, Failure, Seen, diagnose
from dnsupdate.keys import Key
from dnsupdate.message import Answer, Clock, Request, query_request, read_answer, update_request
from dnsupdate.update import Update

_UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EADDRNOTAVAIL, errno.EACCES)


def peer_name(address: str, port: int) -> str:
    """Return a server as messages name it."""
    return address if port == 53 else f"{address} port {port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A server and how we speak to it. `timeout_s` bounds a connection attempt and the wait for an answer, each."""

    address: str
    port: int = 53
    key: Key | None = None
    fudge_s: int = 60
    timeout_s: float = 5.0

    @property
    def name(self) -> str:
        """The server as messages name it."""
        return peer_name(self.address, self.port)


@dataclass(frozen=True, slots=True)
class Reply:
    """How one message went."""

    diagnosis: Diagnosis
    answer: Answer | None = None
    message_id: int = 0


class Channel:
    """A connection; `async with` or `close()` ends it. Opened by the first message, and again after it broke.

    Not for concurrent use: a target has one sender, and the sender sends in order.
    """

    def __init__(self, peer: Peer, clock: Clock) -> None:
        self.peer = peer
        self._clock = clock
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection, if there is one."""
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()
            with suppress(OSError):
                await streams[1].wait_closed()

    async def update(self, *updates: Update) -> list[Reply]:
        """Send updates, all at once, and return how each went; in order.

        Raises:
            TooBigError: one of them does not fit; nothing was sent.
        """
        peer = self.peer
        requests = [
            update_request(update, number, key=peer.key, fudge_s=peer.fudge_s, clock=self._clock)
            for number, update in zip(_ids(len(updates)), updates, strict=True)
        ]
        return await self._exchange(requests, [update.zone for update in updates])

    async def query(self, *questions: tuple[str, str]) -> list[Reply]:
        """Ask for (name, type) pairs, all at once; in order."""
        peer = self.peer
        requests = [
            query_request(name, rdtype, number, key=peer.key, fudge_s=peer.fudge_s, clock=self._clock)
            for number, (name, rdtype) in zip(_ids(len(questions)), questions, strict=True)
        ]
        return await self._exchange(requests, [name for name, _ in questions])

    async def _exchange(self, requests: Sequence[Request], zones: Sequence[str]) -> list[Reply]:
        answers: dict[int, Answer] = {}
        opened = await self._open()
        failure = opened if isinstance(opened, Failure) else await self._converse(*opened, requests, answers)
        return [
            self._reply(request, zone, answers.get(request.id), failure)
            for request, zone in zip(requests, zones, strict=True)
        ]

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | Failure:
        if self._streams is not None:
            if not self._streams[0].at_eof():
                return self._streams
            await self.close()
        try:
            async with asyncio.timeout(self.peer.timeout_s):
                self._streams = await asyncio.open_connection(self.peer.address, self.peer.port)
        except TimeoutError:
            return Failure.CONNECT_TIMEOUT
        except OSError as exc:
            return Failure.UNREACHABLE if exc.errno in _UNREACHABLE else Failure.REFUSED
        return self._streams

    async def _converse(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        requests: Sequence[Request],
        answers: dict[int, Answer],
    ) -> Failure | None:
        """Write all, then read until all are answered. What is unanswered at the end shares one failure."""
        failure: Failure | None = None
        waiting = {request.id: request for request in requests}
        try:
            async with asyncio.timeout(self.peer.timeout_s) as limit:
                for request in requests:
                    writer.write(struct.pack("!H", len(request.wire)) + request.wire)
                _acknowledge_at_once(writer)
                while waiting:
                    size = struct.unpack("!H", await reader.readexactly(2))[0]
                    wire = await reader.readexactly(size)
                    request = waiting.pop(int.from_bytes(wire[:2], "big"))
                    answers[request.id] = read_answer(wire, request)
                    limit.reschedule(asyncio.get_running_loop().time() + self.peer.timeout_s)
        except TimeoutError:
            failure = Failure.TIMEOUT
        except asyncio.IncompleteReadError:
            failure = Failure.CLOSED
        except ConnectionError:
            failure = Failure.RESET
        except OSError:
            failure = Failure.TIMEOUT
        except (ValueError, KeyError):
            failure = Failure.GARBAGE
        except asyncio.CancelledError:
            writer.transport.abort()  # what is on its way stays unknown; the caller goes
            self._streams = None
            raise
        if failure is not None:
            await self.close()
        return failure

    def _reply(self, request: Request, zone: str, answer: Answer | None, failure: Failure | None) -> Reply:
        seen = Seen(failure=failure)
        if answer is not None:
            skew = None if answer.server_time_s is None else answer.server_time_s - int(self._clock())
            seen = Seen(None, answer.rcode, answer.tsig_error, answer.signed, skew)
        key = self.peer.key.name if self.peer.key else "(none)"
        context = Context(
            server=self.peer.name,
            zone=zone,
            key=key,
            timeout_s=self.peer.timeout_s,
            fudge_s=self.peer.fudge_s,
        )
        return Reply(diagnose(seen, context), answer, request.id)


def _acknowledge_at_once(writer: asyncio.StreamWriter) -> None:
    """Have the kernel not wait to acknowledge the next answer: BIND holds the one after it back until then, 40 ms."""
    found = writer.get_extra_info("socket")
    if found is not None and hasattr(socket, "TCP_QUICKACK"):
        with suppress(OSError):  # the connection is gone, as the reading will tell
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def _ids(count: int) -> list[int]:
    """Distinct ones: answers are told apart by them."""
    return secrets.SystemRandom().sample(range(65536), count)


Connect = Callable[[Peer], Channel]
