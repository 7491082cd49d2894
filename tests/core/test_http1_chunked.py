"""Chunked bodies in any cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.core.http1 import ChunkFollower, Refusal

BODY = b'5;a="x"\r\nhello\r\n1\r\n!\r\n0\r\nETag: e\r\nX-Evil: 1\r\nContent-Length: 9\r\n\r\n'


def follow(pieces: list[bytes]) -> tuple[bytes, ChunkFollower]:
    follower = ChunkFollower()
    content = b""
    for piece in pieces:
        step = follower.feed(piece)
        assert not isinstance(step, Refusal), step
        content += b"".join(step[0])
    return content, follower


@given(st.lists(st.integers(0, len(BODY)), max_size=8))
def test_a_chunked_body_reads_the_same_in_any_cut(cuts: list[int]) -> None:
    bounds = [0, *sorted(cuts), len(BODY)]
    content, follower = follow([BODY[a:b] for a, b in itertools.pairwise(bounds)])
    assert content == b"hello!"
    assert follower.done
    assert [name for name, _, _ in follower.trailers] == [b"etag"]
    assert follower.body_bytes == 6


@pytest.mark.parametrize("cut", range(1, 11))
def test_bytes_after_the_body_are_left(cut: int) -> None:
    data = b"0\r\n\r\nGET /"
    follower = ChunkFollower()
    used = 0
    for at in range(0, len(data), cut):
        if follower.done:
            break
        step = follower.feed(data[at : at + cut])
        assert not isinstance(step, Refusal)
        used = at + step[1]
    assert used == 5


@pytest.mark.parametrize(
    "data",
    [
        b"0x5\r\nhello\r\n",
        b"+5\r\n",
        b"-5\r\n",
        b"5 \r\n",
        b" 5\r\n",
        b"\r\n",
        b"g\r\n",
        b"1_0\r\n",
        b"5\nhello",
        b"5\rhello",
        b"5\r\nhelloX",
        b"5\r\nhello\n",
        b"5;a=\x00\r\n",
        b"5;a\nb\r\n",
        b'5;a="\r\n"\r\n',
        b"1" * 16 + b"\r\n",
        b"5;" + b"a" * 5000,
        b"0\r\nbad line\r\n\r\n",
        b"0\r\nA: b\n\r\n",
        b"0\r\nA: " + b"b" * 5000,
    ],
)
def test_bad_chunked_framing_is_refused_whole_and_byte_by_byte(data: bytes) -> None:
    whole = ChunkFollower().feed(data)
    assert isinstance(whole, Refusal)
    follower = ChunkFollower()
    steps = [follower.feed(data[at : at + 1]) for at in range(len(data))]
    assert any(isinstance(step, Refusal) for step in steps)
