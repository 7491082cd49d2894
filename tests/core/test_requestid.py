"""Ids: which is kept, and what a made one looks like."""

import random
import re
import uuid

import pytest

from balancer.core.requestid import MAKERS, RANDOM_BYTES, acceptor, arvados_id, fingerprint, hex_id, kept, uuid_id
from balancer.model import RequestId

ACCEPTS = acceptor(RequestId().accept)


@pytest.mark.parametrize(
    ("values", "keeps"),
    [
        ([b"req-0123456789abcdefghij"], True),
        ([b"a" * 1024], True),
        ([b"a" * 1025], False),
        ([b""], False),
        ([b"a b"], False),
        ([b"a\n"], False),
        ([b'a"b'], False),
        ([b"\xe9"], False),
        ([b"a", b"a"], False),
        ([], False),
    ],
)
def test_one_clean_id_is_kept(values: list[bytes], keeps: bool) -> None:
    assert kept(values, ACCEPTS) == (values[0] if keeps else None)


def test_a_pattern_without_anchors_still_speaks_of_the_whole_value() -> None:
    assert kept([b"abc\r"], acceptor("[a-z]+")) is None


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("arvados", rb"req-[0-9a-z]{20}"),
        ("hex", rb"[0-9a-f]{32}"),
        ("uuid", rb"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"),
    ],
)
def test_made_ids_have_their_form_and_are_kept_by_the_next_balancer(form: str, pattern: bytes) -> None:
    source = random.Random(1)
    made = {MAKERS[form](source.randbytes(RANDOM_BYTES)) for _ in range(500)}
    assert len(made) == 500
    for value in made:
        assert re.fullmatch(pattern, value)
        assert kept([value], ACCEPTS) == value


def test_all_randomness_is_used() -> None:
    ones, other = bytes(RANDOM_BYTES), bytes(RANDOM_BYTES - 1) + b"\x01"
    assert arvados_id(ones) != arvados_id(other)
    assert hex_id(ones[:15] + b"\x01" + ones[16:]) != hex_id(ones)
    assert uuid.UUID(uuid_id(ones).decode()).version == 4


def test_a_fingerprint_tells_nothing_and_is_stable() -> None:
    assert fingerprint(b"secret\r\nid") == fingerprint(b"secret\r\nid")
    assert re.fullmatch(r"[0-9a-f]{16}", fingerprint(b"secret\r\nid"))
