"""What the client of health checks makes of every way in which a node can answer, or fail to."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from balancer.control.httpclient import NoAnswerError, Target, get, request

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
TIMEOUT_S = 20.0  # never reached


class Served:
    """A loopback server that answers every connection in one way and keeps the heads that it got."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.heads: list[bytes] = []
        self.asked = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            self.asked.set()
            await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass  # the client left, as in some tests it does
        finally:
            writer.close()


def saying(*parts: bytes) -> Answer:
    """Send the parts one after the other, each in a segment of its own, then close."""

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.01)

    return answer


@asynccontextmanager
async def serving(
    answer: Answer, *, tls: ssl.SSLContext | None = None, path: Path | None = None
) -> AsyncIterator[tuple[Served, Target]]:
    served = Served(answer)
    if path is not None:
        server = await asyncio.start_unix_server(served, str(path))
        target = Target("", 0, "node.example", "/status?x=1", unix_path=str(path))
    else:
        server = await asyncio.start_server(served, "127.0.0.1", 0, ssl=tls)
        target = Target("127.0.0.1", server.sockets[0].getsockname()[1], "node.example", "/status?x=1")
    try:
        yield served, target
    finally:
        server.close()
        await server.wait_closed()


async def asked(*parts: bytes, limit: int = 64 << 10) -> tuple[int, bytes]:
    async with serving(saying(*parts)) as (_, target):
        return await get(target, timeout_s=TIMEOUT_S, limit=limit)


async def why(*parts: bytes) -> str:
    with pytest.raises(NoAnswerError) as caught:
        await asked(*parts)
    assert not caught.value.refused
    return str(caught.value)


async def test_every_framing_is_read_in_any_cut() -> None:
    assert await asked(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello") == (200, b"hello")
    assert await asked(b"HTTP/1.1 20", b"0 OK\r\nContent-Le", b"ngth: 5\r\n\r", b"\nhe", b"llo") == (200, b"hello")
    assert await asked(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n") == (503, b"")
    assert await asked(b"HTTP/1.0 200 OK\r\n\r\nhel", b"lo") == (200, b"hello")
    assert await asked(b"HTTP/1.1 204 No Content\r\n\r\n") == (204, b"")
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert await asked(chunked, b"3\r\nhel\r\n2", b"\r\nlo\r\n0\r\n\r\n") == (200, b"hello")


async def test_interim_answers_are_passed_over() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    assert await asked(early + early, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") == (200, b"ok")


async def test_no_more_than_the_limit_is_read() -> None:
    async def endless(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with serving(endless) as (_, target):
        status, body = await get(target, timeout_s=TIMEOUT_S, limit=100_000)
    assert (status, body) == (200, b"x" * 100_000)
    assert await asked(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", limit=4) == (200, b"hell")


async def test_what_is_no_whole_answer_is_said_in_words() -> None:
    cut = "connection closed in the middle of the answer"
    assert await why() == "connection closed before the answer"
    assert await why(b"HTTP/1.1 200 OK\r\nConte") == "connection closed before the answer"
    assert await why(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhel") == cut
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert await why(chunked + b"5\r\nhel") == cut
    assert (await why(chunked + b"zz\r\n")).startswith("the answer is not HTTP: a chunk size line")
    assert (await why(b"SSH-2.0-OpenSSH_9.2\r\n")).startswith("the answer is not HTTP: ")
    twice = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"
    assert await why(twice) == "the answer is not HTTP: differing Content-Length fields"


async def test_a_reset_is_a_closed_connection() -> None:
    async def reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    async def reset_within(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nhel")
        await asyncio.sleep(0.05)
        await reset(reader, writer)

    for answer, text in ((reset, "before the answer"), (reset_within, "in the middle of the answer")):
        async with serving(answer) as (_, target):
            with pytest.raises(NoAnswerError, match=text):
                await get(target, timeout_s=TIMEOUT_S)


async def test_a_silent_node_is_given_up_at_the_deadline_wherever_it_fell_silent() -> None:
    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhel")
        await asyncio.sleep(0.5)

    async with serving(silent) as (_, target):
        with pytest.raises(NoAnswerError, match=r"no answer within 0\.1 s"):
            await get(target, timeout_s=0.1)


async def test_nobody_listening_is_told_apart() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        for target in (Target("127.0.0.1", port, "x", "/"), Target("", 0, "x", "/", unix_path="/nowhere/node.sock")):
            with pytest.raises(NoAnswerError, match="connection refused") as caught:
                await get(target, timeout_s=TIMEOUT_S)
            assert caught.value.refused


async def test_a_unix_node_is_asked_like_any_other(tmp_path: Path) -> None:
    answer = saying(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    async with serving(answer, path=tmp_path / "node.sock") as (served, target):
        assert await get(target, timeout_s=TIMEOUT_S) == (200, b"ok")
    assert served.heads[0].startswith(b"GET /status?x=1 HTTP/1.1\r\nHost: node.example\r\n")


async def test_a_certificate_must_fit_the_name(tmp_path: Path) -> None:
    authority = trustme.CA()
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("node.example").configure_cert(server_side)
    trusting, strange = ssl.create_default_context(), ssl.create_default_context()
    authority.configure_trust(trusting)
    body = b"x" * 200_000  # many records
    answer = saying(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body)

    async with serving(answer, tls=server_side) as (_, plain):

        async def ask(context: ssl.SSLContext, name: str) -> tuple[int, bytes]:
            target = Target(plain.address, plain.port, "node.example", "/", tls=context, server_name=name)
            return await get(target, timeout_s=TIMEOUT_S, limit=1 << 20)

        assert await ask(trusting, "node.example") == (200, body)
        for context, name in ((trusting, "other.example"), (strange, "node.example")):
            with pytest.raises(NoAnswerError, match="certificate not accepted: "):
                await ask(context, name)
        with pytest.raises(NoAnswerError, match="connection closed before the answer"):
            await get(plain, timeout_s=TIMEOUT_S)  # plain HTTP to a TLS node
    async with serving(saying(b"HTTP/1.1 200 OK\r\n\r\n")) as (_, plain):
        target = Target(plain.address, plain.port, "x", "/", tls=trusting, server_name="node.example")
        with pytest.raises(NoAnswerError):  # TLS to a plain node
            await get(target, timeout_s=0.3)


def test_a_token_is_sent_and_never_shown() -> None:
    target = Target("127.0.0.1", 80, "node.example", "/", token="very-secret")
    assert b"\r\nAuthorization: Bearer very-secret\r\n\r\n" in request(target)
    assert "secret" not in repr(target)
    broken = Target("127.0.0.1", 80, "node.example", "/", token="secret\r\nX-Evil: 1")
    with pytest.raises(NoAnswerError) as caught:
        request(broken)
    assert "secret" not in str(caught.value)


async def test_a_check_that_is_cancelled_leaves_no_socket_behind() -> None:
    async def silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.5)

    async with serving(silent) as (served, target):
        task = asyncio.create_task(get(target, timeout_s=TIMEOUT_S))
        await served.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
