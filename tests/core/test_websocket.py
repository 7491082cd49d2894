"""Boundaries of WebSocket frames."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from balancer.core.websocket import CLOSE_TO_CLIENT, CLOSE_TO_NODE, FrameFollower


def frame(payload: bytes, *, masked: bool) -> bytes:
    size = len(payload)
    bit = 0x80 if masked else 0
    if size < 126:
        head = bytes((0x82, bit | size))
    elif size < 1 << 16:
        head = bytes((0x82, bit | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x82, bit | 127)) + size.to_bytes(8, "big")
    return head + (b"\1\2\3\4" if masked else b"") + payload


sizes = st.sampled_from([0, 1, 125, 126, 300, 65535, 65536])
frames = st.lists(st.tuples(sizes, st.booleans()), min_size=1, max_size=5)


@given(shapes=frames, cuts=st.lists(st.integers(0, 200_000), max_size=6))
def test_boundaries_are_found_in_any_cut(shapes: list[tuple[int, bool]], cuts: list[int]) -> None:
    pieces = [frame(b"x" * size, masked=masked) for size, masked in shapes]
    data = b"".join(pieces)
    bounds = {0}
    for piece in pieces:
        bounds.add(max(bounds) + len(piece))
    follower = FrameFollower()
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        first = follower.feed(data[start:end])
        expected = min((bound for bound in bounds if start <= bound <= end), default=-1)
        assert first == (expected - start if expected >= 0 else -1) or start == end
        assert follower.at_boundary == (end in bounds)


def test_our_close_frames_are_whole_frames() -> None:
    for close in (CLOSE_TO_CLIENT, CLOSE_TO_NODE):
        follower = FrameFollower()
        follower.feed(close)
        assert follower.at_boundary
