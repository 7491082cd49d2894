"""The rows of the comparison: what is sent, and what a first release must reach beside HAProxy."""

from dataclasses import dataclass

from bench.load import Work
from bench.nodes import LARGE_BYTES, MEDIUM_BYTES


@dataclass(frozen=True, slots=True)
class Traffic:
    """CPU time per unit of work. `goal` is the highest ratio to HAProxy that is good enough."""

    name: str
    title: str
    work: Work
    goal: float


@dataclass(frozen=True, slots=True)
class Idle:
    """Memory of the target per connection that waits. `goal` is in KiB."""

    name: str
    title: str
    count: int
    goal: float
    tls: bool = False


TRAFFIC = (
    Traffic("small", "1 KiB GET, small unique heads", Work("small"), 1.5),
    Traffic("real", "1 KiB GET, realistic 850-byte heads", Work("real", "/arvados/v1/collections"), 1.7),
    Traffic("get64k", "64 KiB GET", Work("small", "/medium"), 0.95),
    Traffic("post64k", "64 KiB POST", Work("post", "/post", MEDIUM_BYTES), 1.15),
    Traffic("get10m", "10 MiB GET", Work("small", "/large", connections=16, unit_bytes=LARGE_BYTES), 0.5),
    Traffic("close", "new connection per request", Work("close", connections=32), 1.5),
    Traffic("tls", "TLS keep-alive 1 KiB GET", Work("small", tls=True), 1.3),
    Traffic("ws125", "WebSocket 125 B echo", Work("websocket", body_bytes=125), 1.2),
    Traffic("ws64k", "WebSocket 64 KiB echo", Work("websocket", body_bytes=MEDIUM_BYTES, connections=8), 0.8),
)
IDLE = (
    Idle("idle", "KiB per idle connection, plain", 2000, 3.0),
    Idle("idle-tls", "KiB per idle connection, TLS", 1000, 18.0, tls=True),
)
MEAN_GOAL = 1.1  # geometric mean of all rows of TRAFFIC
NAMES = (*(row.name for row in TRAFFIC), *(row.name for row in IDLE))
