"""The three recording nodes in front of which every engine is put, and what they do on request."""

import base64
import hashlib
import threading
from collections import Counter

from tests.support.upstream import Close, Echo, Request, Script, Sleep, Step, Upstream, answer

NAMES = ("a", "b", "c")
MEBIBYTE = b"m" * (1 << 20)
HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n" + b"h" * 200


class Nodes:
    """Nodes `a`, `b`, `c`. `sick` ones answer their checks with status 200 and ERROR in the body, as Arvados does."""

    def __init__(self) -> None:
        self.sick: set[str] = set()
        self._once: set[str] = set()
        self._lock = threading.Lock()
        self._all = {name: Upstream(self._script(name), name=name) for name in NAMES}
        for node in self._all.values():
            node.__enter__()

    @property
    def ports(self) -> dict[str, int]:
        """Port of each by name."""
        return {name: node.port for name, node in self._all.items()}

    def close(self) -> None:
        """Stop them."""
        for node in self._all.values():
            node.stop()

    def stop(self, name: str) -> None:
        """Let one refuse connections from now on."""
        self._all[name].stop()

    def received(self, word: str) -> list[tuple[str, Request]]:
        """The requests whose target holds `word`, with the node that got each, in order of arrival."""
        found = [
            (name, request)
            for name, node in self._all.items()
            for request in list(node.requests)
            if word in request.target
        ]
        return sorted(found, key=lambda item: item[1].began_at)

    def counts(self, word: str) -> str:
        """How many of them each node got, as text: `a=2 b=1`."""
        counted = Counter(name for name, _ in self.received(word))
        return " ".join(f"{name}={counted[name]}" for name in NAMES if counted[name]) or "none"

    def first(self, target: str) -> bool:
        """Whether this target is seen for the first time, at whatever node."""
        with self._lock:
            if target in self._once:
                return False
            self._once.add(target)
            return True

    def _script(self, name: str) -> Script:
        def script(request: Request) -> bytes | list[Step] | None:
            return self._answer(name, request)

        return script

    def _answer(self, name: str, request: Request) -> bytes | list[Step] | None:
        path = request.target.partition("?")[0]
        match path.strip("/").partition("/")[0]:
            case "_health":
                word = b"ERROR" if name in self.sick else b"OK"
                return answer(b'{"health":"%b"}' % word, headers=(("Content-Type", "application/json"),))
            case "dies" if self.first(request.target):
                return [Close()]
            case "cut" if self.first(request.target):
                return [HALF, Close()]
            case "slow":
                return [Sleep(10), answer(b"late")]
            case "big":
                return answer(MEBIBYTE)
            case "hop":
                return answer(
                    name.encode(),
                    headers=(
                        ("Keep-Alive", "timeout=9"),
                        ("Connection", "X-Private"),
                        ("X-Private", "1"),
                        ("Proxy-Authenticate", "Basic"),
                        ("X-Request-Id", "of-the-node"),
                        ("X-Request-Id", "twice"),
                    ),
                )
            case "missing":
                return answer(b"{}", status=404)
            case "broken":
                return answer(b"{}", status=500)
            case "tunnel":
                return _switch(request)
            case _:
                pass
        return answer(b"" if request.method == "HEAD" else name.encode(), length=1)


def _switch(request: Request) -> bytes | list[Step] | None:
    token = request.one("Upgrade")
    if token is None or "upgrade" not in (request.one("Connection") or "").lower():
        return answer(b"plain")
    head = f"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: {token}\r\n"
    if key := request.one("Sec-WebSocket-Key"):
        digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode(), usedforsecurity=False)
        head += f"Sec-WebSocket-Accept: {base64.b64encode(digest.digest()).decode()}\r\n"
    return [head.encode() + b"\r\n", Echo()]
