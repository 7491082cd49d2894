"""What is known of an HTTP/1.1 message: heads, refusals, and the pieces of grammar that parsers share."""

import dataclasses
import re
from dataclasses import dataclass
from typing import Final

NAME = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"  # tchar
TEXT = rb"[\t\x20-\x7e\x80-\xff]"  # of a field value; obs-text is opaque
FIELD = re.compile(rb"(" + NAME + rb"++):(" + TEXT + rb"*+)\Z")  # the value is to be stripped of spaces and tabs
BARE = re.compile(rb"\r(?!\n|\Z)|(?<!\r)\n")
TOKEN = re.compile(NAME + rb"+\Z")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a message is not taken. `status` is for the client; a node's refused answer is a 502 whatever it says here.

    After every refusal the connection is closed: what follows on it cannot be told apart from the rest of this one.
    `fields`: of a head whose lines were all well formed, so that the answer carries the client's own request id.
    """

    status: int
    reason: str
    fields: "tuple[Field, ...]" = dataclasses.field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Incomplete:
    """More bytes are needed; nothing wrong so far."""


INCOMPLETE: Final = Incomplete()

Field = tuple[bytes, bytes, bytes]  # lower-case name, name as sent, value without surrounding whitespace


@dataclass(slots=True)
class RequestHead:
    """A request head that may be forwarded.

    Attributes:
        method: as sent, one of METHODS.
        target: origin form ("/..." or "*"), raw.
        minor: 0 or 1, of HTTP/1.x.
        host: the Host value; empty when an HTTP/1.0 client sent none.
        fields: all fields but Host, in order.
        length: bytes of the head, leading empty line and blank line included.
        content_length: declared length, None without one.
        chunked: body is chunked; never together with `content_length`.
        keep_alive: what the client asks for its connection.
        nominated: lower-case names that Connection lists, besides close, keep-alive and upgrade.
        expect_continue: it waits for "100 Continue".
        upgrade: the protocols asked for and allowed, as sent, or empty.
        te_trailers: it said "TE: trailers".
    """

    method: bytes
    target: bytes
    minor: int
    host: bytes
    fields: list[Field]
    length: int
    content_length: int | None = None
    chunked: bool = False
    keep_alive: bool = True
    nominated: frozenset[bytes] = frozenset()
    expect_continue: bool = False
    upgrade: bytes = b""
    te_trailers: bool = False

    def value(self, name: bytes) -> bytes | None:
        """Return the value of the first field called `name` (lower case)."""
        if name == b"host":
            return self.host or None
        return next((value for lower, _, value in self.fields if lower == name), None)


@dataclass(slots=True)
class ResponseHead:
    """A response head that may be passed on.

    Attributes:
        status: 100..599.
        line: the status line as sent, without CRLF.
        minor: 0 or 1.
        fields: all fields, in order.
        length: bytes of the head.
        content_length: length of the body in bytes; None: chunked or ended by closing.
        chunked: body is chunked.
        keep_alive: the node keeps the connection open.
        nominated: lower-case names that Connection lists.
        upgrade: value of Upgrade on a 101.
        drop_length: Content-Length came with Transfer-Encoding and must not be passed on.
    """

    status: int
    line: bytes
    minor: int
    fields: list[Field]
    length: int
    content_length: int | None = None
    chunked: bool = False
    keep_alive: bool = True
    nominated: frozenset[bytes] = frozenset()
    upgrade: bytes = b""
    drop_length: bool = False
