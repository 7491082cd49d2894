"""What a vector is: bytes that somebody may send, and the one right reaction to them."""

from dataclasses import dataclass
from enum import StrEnum


class Fate(StrEnum):
    """What becomes of the client's connection after the answer."""

    KEEP = "keep"
    CLOSE = "close"


class Llhttp(StrEnum):
    """What llhttp (httptools, strict) says about the same bytes; a check of the bytes themselves."""

    ACCEPTS = "accepts"
    REJECTS = "rejects"
    WAITS = "waits"
    UPGRADE = "upgrade"


@dataclass(frozen=True, slots=True)
class Reaches:
    """What a node gets to see of a forwarded request. `target` None: the origin form of the vector's own.

    fields: must be there once with this value; absent: must not be there (lower-case names). `body` is the content,
    whatever its framing.
    """

    target: bytes | None = None
    method: bytes | None = None
    body: bytes = b""
    fields: tuple[tuple[bytes, bytes], ...] = ()
    absent: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Vector:
    """`answers` are the final statuses in order; a forwarded request is answered 200 by the node of the tests.

    waits: no answer before a timeout of the balancer passes. `after_continue` is sent once "100 Continue" came.
    """

    name: str
    sent: bytes
    answers: tuple[int, ...]
    fate: Fate
    reaches: tuple[Reaches, ...]
    llhttp: Llhttp
    reason: str
    waits: bool = False
    after_continue: bytes = b""

    @property
    def in_body(self) -> bool:
        """The head is good; the refusal comes from the body."""
        return not self.reaches and self.head_is_good

    @property
    def head_is_good(self) -> bool:
        """Whether the head alone has to be taken."""
        return bool(self.reaches) or self.name.startswith(("chunk-", "trailer-", "last-chunk", "cl-short"))


def own_target(name: str) -> bytes:
    """The path in a vector's request line, so that what arrives can be told apart."""
    return b"/v/" + name.encode()
