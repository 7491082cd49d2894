"""Every vector against the parser alone: whole, byte by byte, cut at random; and against llhttp."""

import random
from collections.abc import Iterator

import httptools
import pytest

from balancer.core.http1 import ChunkFollower, Incomplete, Refusal, RequestHead, parse_request
from balancer.model import Forwarding, Limits
from tests.compliance.request_vectors import NEIGHBOURS, VECTORS
from tests.compliance.vectors import Fate, Llhttp, Vector, own_target

ALL = (*VECTORS, *NEIGHBOURS)
LIMITS, FORWARDING = Limits(), Forwarding()


def named(vectors: tuple[Vector, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", vectors, ids=[vector.name for vector in vectors])


class Reader:
    """Takes bytes as they come and keeps whole requests, until a refusal."""

    def __init__(self) -> None:
        self.requests: list[tuple[RequestHead, bytes]] = []
        self.refusal: Refusal | None = None
        self.head_taken = False
        self._held = b""
        self._head: RequestHead | None = None
        self._chunks = ChunkFollower()
        self._body = b""

    def feed(self, data: bytes) -> None:
        self._held += data
        while self.refusal is None and self._held and (self._take_body() if self._head else self._take_head()):
            pass

    def _take_head(self) -> bool:
        found = parse_request(self._held, LIMITS, FORWARDING)
        if isinstance(found, Refusal):
            self.refusal = found
            return False
        if isinstance(found, Incomplete):
            return False
        self._head, self._body, self._chunks, self.head_taken = found, b"", ChunkFollower(), True
        self._held = self._held[found.length :]
        return self._take_body()

    def _take_body(self) -> bool:
        assert self._head is not None
        if self._head.chunked:
            fed = self._chunks.feed(self._held)
            if isinstance(fed, Refusal):
                self.refusal = fed
                return False
            self._body += b"".join(fed[0])
            self._held = self._held[fed[1] :]
            if not self._chunks.done:
                return False
        else:
            wanted = (self._head.content_length or 0) - len(self._body)
            self._body += self._held[:wanted]
            self._held = self._held[wanted:]
            if len(self._body) < (self._head.content_length or 0):
                return False
        self.requests.append((self._head, self._body))
        self._head = None
        return bool(self._held)


def cuts(data: bytes, how: str) -> Iterator[bytes]:
    if how == "whole":
        yield data
    elif how == "bytes":
        step = 1 if len(data) < 2000 else 97  # a head of 70 KB byte by byte is 5 GB of searching
        yield from (data[at : at + step] for at in range(0, len(data), step))
    else:
        source = random.Random(len(data))
        at = 0
        while at < len(data):
            size = source.choice((1, 2, 3, 7, 40, 700))
            yield data[at : at + size]
            at += size


def read(vector: Vector, how: str) -> Reader:
    reader = Reader()
    for piece in cuts(vector.sent + vector.after_continue, how):
        reader.feed(piece)
    return reader


def test_the_vectors_are_all_there_and_have_names_of_their_own() -> None:
    assert len(VECTORS) == 140
    assert len({vector.name for vector in ALL}) == len(ALL)


@named(ALL)
def test_a_vector_is_taken_or_refused_as_it_must(vector: Vector) -> None:
    for how in ("whole", "bytes", "random"):
        check(vector, read(vector, how))


def check(vector: Vector, reader: Reader) -> None:
    if vector.reaches:
        assert reader.refusal is None
        assert [body for _, body in reader.requests] == [reaches.body for reaches in vector.reaches]
        for (head, _), reaches in zip(reader.requests, vector.reaches, strict=True):
            assert head.target == (reaches.target or head.target)
            assert reaches.method in (None, head.method)
        assert reader.requests[-1][0].keep_alive is (vector.fate is Fate.KEEP)
    elif vector.waits:
        assert reader.refusal is None
        assert not reader.requests
    else:
        assert reader.refusal is not None
        assert (reader.refusal.status,) == vector.answers
        assert not reader.requests
    assert reader.head_taken or not vector.head_is_good


def test_a_refusal_says_why_and_never_repeats_what_was_sent() -> None:
    for vector in ALL:
        if vector.reaches or vector.waits:
            continue
        refusal = read(vector, "whole").refusal
        assert refusal is not None
        assert refusal.reason.isprintable()
        assert own_target(vector.name).decode() not in refusal.reason


class Heard:
    """What llhttp calls back."""

    def __init__(self) -> None:
        self.complete = 0

    def on_message_complete(self) -> None:
        self.complete += 1


def llhttp(data: bytes) -> Llhttp:
    heard = Heard()
    parser = httptools.HttpRequestParser(heard)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        return Llhttp.UPGRADE
    except httptools.HttpParserError:
        return Llhttp.REJECTS
    return Llhttp.ACCEPTS if heard.complete else Llhttp.WAITS


def test_llhttp_sees_the_same_bytes_as_it_is_said_to() -> None:
    """Guards the bytes: a typing error in a vector would mostly change what another parser says about it."""
    seen = {vector.name: llhttp(vector.sent) for vector in ALL}
    assert seen == {vector.name: vector.llhttp for vector in ALL}


def test_we_refuse_more_than_llhttp_and_never_less() -> None:
    laxer = [v.name for v in ALL if v.llhttp is Llhttp.REJECTS and v.reaches and not v.name.startswith("trailer-")]
    assert laxer == []
    assert sum(vector.llhttp is Llhttp.REJECTS for vector in VECTORS) == 77
