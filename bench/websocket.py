"""The few bytes of RFC 6455 that the echo node and the load client share.

Client frames are masked with an all-zero key: valid, and neither side spends time on unmasking.
"""

import base64
import hashlib
import struct

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_BINARY = 0x82
_MASKED = 0x80
KEY = base64.b64encode(bytes(range(16)))


def accept_of(key: bytes) -> bytes:
    """Return Sec-WebSocket-Accept for a Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def client_frame(payload: bytes) -> bytes:
    """Return a binary frame as a client sends it."""
    return _head(len(payload), _MASKED) + b"\0\0\0\0" + payload


def server_frame(payload: bytes) -> bytes:
    """Return a binary frame as a node sends it."""
    return _head(len(payload), 0) + payload


def client_frame_length(data: bytearray) -> tuple[int, int] | None:
    """Return (bytes of head, bytes of payload) of the client frame at the start of `data`; None when cut short."""
    if len(data) < 6:
        return None
    length = data[1] & 0x7F
    if length < 126:
        return 6, length
    if length == 126:
        return (8, int.from_bytes(data[2:4], "big")) if len(data) >= 8 else None
    return (14, int.from_bytes(data[2:10], "big")) if len(data) >= 14 else None


def _head(length: int, masked: int) -> bytes:
    if length < 126:
        return bytes((_BINARY, masked | length))
    if length < 65536:
        return struct.pack(">BBH", _BINARY, masked | 126, length)
    return struct.pack(">BBQ", _BINARY, masked | 127, length)
