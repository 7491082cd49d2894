"""Every answer of a node against the parser alone, in any cut."""

import pytest

from balancer.core.http1 import ChunkFollower, Incomplete, Refusal, ResponseHead, parse_response
from tests.compliance.response_vectors import ANSWERS, NodeAnswer
from tests.compliance.test_parser import cuts


class Taken:
    """What a client of ours would see of a node's bytes."""

    def __init__(self, answer: NodeAnswer, how: str) -> None:
        self.interim: list[int] = []
        self.head: ResponseHead | None = None
        self.refusal: Refusal | None = None
        self.body = b""
        self.whole = False
        self._method = answer.method
        self._held = b""
        self._chunks = ChunkFollower()
        self._read(answer, how)

    def _read(self, answer: NodeAnswer, how: str) -> None:
        for piece in cuts(answer.sent, how):
            self._held += piece
            while self.refusal is None and not self.whole and self._step():
                pass
        if answer.closes and self.head is not None and self.head.content_length is None and not self.head.chunked:
            self.whole = True

    @property
    def left_over(self) -> bool:
        """Bytes came after the end."""
        return self.whole and bool(self._held)

    def _step(self) -> bool:
        if self.head is None:
            found = parse_response(self._held, self._method)
            if isinstance(found, Refusal):
                self.refusal = found
                return False
            if isinstance(found, Incomplete):
                return False
            self._held = self._held[found.length :]
            if found.status == 101:
                self.refusal = Refusal(502, "not asked for")
                return False
            if found.status < 200:
                self.interim.append(found.status)
                return True
            self.head = found
        if self.head.chunked:
            fed = self._chunks.feed(self._held)
            if isinstance(fed, Refusal):
                self.refusal = fed
                return False
            self.body += b"".join(fed[0])
            self._held = self._held[fed[1] :]
            self.whole = self._chunks.done
        elif self.head.content_length is None:
            self.body += self._held
            self._held = b""
        else:
            wanted = self.head.content_length - len(self.body)
            self.body += self._held[:wanted]
            self._held = self._held[wanted:]
            self.whole = len(self.body) == self.head.content_length
        return False


@pytest.mark.parametrize("answer", ANSWERS, ids=[answer.name for answer in ANSWERS])
def test_a_nodes_answer_is_taken_or_refused_as_it_must(answer: NodeAnswer) -> None:
    for how in ("whole", "bytes", "random"):
        taken = Taken(answer, how)
        if answer.status == 502:
            assert taken.refusal is not None or not taken.whole, how
            assert taken.refusal is not None or answer.closes, how
            continue
        assert taken.refusal is None
        assert taken.whole
        assert taken.head is not None
        assert (taken.head.status, taken.body, tuple(taken.interim)) == (answer.status, answer.body, answer.interim)
        assert (taken.head.keep_alive and not taken.left_over) is answer.reusable, how


def test_the_names_are_unique() -> None:
    assert len({answer.name for answer in ANSWERS}) == len(ANSWERS)
