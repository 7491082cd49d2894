"""Messages between our processes: whole, cut anywhere, with descriptors; and what is not a message."""

import json
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.errors import WireError
from balancer.wire import MAX_FDS, MAX_FRAME_BYTES, Channel, Message

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
MESSAGES = st.lists(
    st.tuples(
        st.dictionaries(st.text(max_size=8).filter(lambda key: key != "fds"), JSON, max_size=5), st.integers(0, 6)
    ),
    max_size=8,
)


@contextmanager
def channels() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for sock in (ours, theirs):
        sock.setblocking(False)
    left, right = Channel(ours), Channel(theirs)
    try:
        yield left, right
    finally:
        left.close()
        right.close()


def numbered(number: int) -> int:
    """A descriptor whose content is a number."""
    fd = os.memfd_create("test")
    os.write(fd, str(number).encode())
    return fd


def content(fd: int) -> int:
    return int(os.pread(fd, 20, 0))


def close(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)


def receive_all(channel: Channel, sender: Channel, count: int) -> list[tuple[Message, tuple[int, ...]]]:
    found: list[tuple[Message, tuple[int, ...]]] = []
    while len(found) < count:
        sender.flush()
        found += channel.receive()
    return found


@given(MESSAGES)
def test_messages_and_descriptors_arrive_as_they_were_sent(sent: list[tuple[dict[str, Any], int]]) -> None:
    with channels() as (left, right):
        for at, (message, count) in enumerate(sent):
            fds = tuple(numbered(at * 10 + index) for index in range(count))
            left.send(message, fds)
            assert not left.wants_write
            close(fds)
        for at, (message, fds) in enumerate(receive_all(right, left, len(sent))):
            wanted, count = sent[at]
            assert message == {**wanted, "fds": count}
            assert [content(fd) for fd in fds] == [at * 10 + index for index in range(count)]
            close(fds)


@given(MESSAGES, st.lists(st.integers(1, 40), max_size=30))
def test_frames_cut_anywhere_are_put_together(sent: list[tuple[dict[str, Any], int]], cuts: list[int]) -> None:
    stream = b"".join(frame(message) for message, _count in sent)
    with channels() as (left, right):
        found, at = [], 0
        for length in [*cuts, len(stream)]:
            piece = stream[at : at + length]
            at += len(piece)
            if piece:
                left.sock.send(piece)
                found += right.receive()
        assert [message for message, _fds in found] == [{**message, "fds": 0} for message, _count in sent]


def frame(message: Message) -> bytes:
    body = json.dumps({**message, "fds": 0}).encode()
    return struct.pack(">I", len(body)) + body


def test_a_message_byte_by_byte_is_one_message() -> None:
    with channels() as (left, right):
        found = []
        for byte in frame({"type": "x"}):
            left.sock.send(bytes([byte]))
            found += right.receive()
        assert found == [({"type": "x", "fds": 0}, ())]


def test_a_large_message_waits_for_the_reader_with_its_descriptors() -> None:
    big = "x" * (2 << 20)
    with channels() as (left, right):
        fd = numbered(7)
        left.send({"type": "big", "text": big}, (fd,))
        is_waiting = left.wants_write
        assert is_waiting
        left.send({"type": "next"}, (fd,))
        found = receive_all(right, left, 2)
        assert found[0][0]["text"] == big
        assert [content(fds[0]) for _message, fds in found] == [7, 7]
        assert not left.wants_write
        for _message, fds in found:
            close(fds)
        os.close(fd)


def test_as_many_descriptors_as_the_kernel_takes_and_not_one_more() -> None:
    with channels() as (left, right):
        fd = numbered(1)
        left.send({"type": "many"}, (fd,) * MAX_FDS)
        ((message, fds),) = receive_all(right, left, 1)
        assert message["fds"] == len(fds) == MAX_FDS
        close(fds)
        with pytest.raises(WireError, match=f"{MAX_FDS + 1} descriptors"):
            left.send({"type": "too many"}, (fd,) * (MAX_FDS + 1))
        os.close(fd)


def test_received_descriptors_are_not_inherited_by_programs() -> None:
    with channels() as (left, right):
        fd = numbered(1)
        left.send({"type": "x"}, (fd,))
        ((_message, fds),) = receive_all(right, left, 1)
        assert not os.get_inheritable(fds[0])
        close((fd, *fds))


def test_descriptors_that_nobody_took_are_closed_with_the_channel() -> None:
    reader, writer = os.pipe()
    with channels() as (left, right):
        body = json.dumps({"type": "x", "fds": 0}).encode()  # says that it brings none
        socket.send_fds(left.sock, [struct.pack(">I", len(body)) + body], [writer])
        os.close(writer)
        assert right.receive()[0][1] == ()
    assert os.read(reader, 1) == b""  # the write end is gone everywhere
    os.close(reader)


def test_nothing_there_is_an_empty_list() -> None:
    with channels() as (_left, right):
        assert right.receive() == []


@pytest.mark.parametrize(
    "stream",
    [
        b"\0\0\0\2[]",
        b"\0\0\0\3{x}",
        b"\0\0\0\2{}",
        b'\0\0\0\x0b{"fds":"x"}',
        b'\0\0\0\x09{"fds":1}',
        struct.pack(">I", MAX_FRAME_BYTES + 1),
    ],
)
def test_what_is_no_message_is_refused(stream: bytes) -> None:
    with channels() as (left, right):
        left.sock.send(stream)
        with pytest.raises(WireError):
            right.receive()


def test_a_closed_other_side_is_an_error_for_both_ways() -> None:
    with channels() as (left, right):
        right.close()
        with pytest.raises(WireError, match="closed"):
            left.receive()
        with pytest.raises(WireError, match="gone"):
            left.send({"type": "x"})


@settings(max_examples=20)
@given(st.binary(min_size=1, max_size=200))
def test_noise_never_raises_anything_else(noise: bytes) -> None:
    with channels() as (left, right):
        left.sock.send(noise)
        try:
            right.receive()
        except WireError:
            return
