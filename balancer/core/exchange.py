"""The life of an exchange as a table, and the closed vocabulary of causes."""

from enum import Enum, StrEnum, auto
from typing import Final

from balancer.model import Outcome


class State(Enum):
    """Where an exchange is."""

    READING = auto()  # its head is coming
    PARKED = auto()  # waits: paused, or no node can serve
    QUEUED = auto()  # waits: all nodes that could take it are full
    DELAYED = auto()  # waits a moment before another attempt
    CONNECTING = auto()  # a connection to the chosen node is being made
    SENDING = auto()  # head and body go to the node; an answer may begin meanwhile
    WAITING = auto()  # the request is with the node
    HOLDING = auto()  # a small answer is being collected
    STREAMING = auto()  # the answer goes downstream as it comes
    ANSWERING = auto()  # our own answer goes downstream
    TUNNEL = auto()  # upgraded: bytes both ways
    DONE = auto()  # has its outcome


# Which state may follow which. The byte path moves by it; `Exchange.move` checks it when the worker runs with -X dev.
_CHOOSES = {State.PARKED, State.QUEUED, State.CONNECTING, State.SENDING, State.WAITING}
_ENDS = {State.ANSWERING, State.DONE}
_ATTEMPT_FAILS = _ENDS | {State.DELAYED}
TRANSITIONS: Final[dict[State, frozenset[State]]] = {
    State.READING: frozenset(_CHOOSES | _ENDS),
    State.PARKED: frozenset(_CHOOSES | _ENDS),
    State.QUEUED: frozenset(_CHOOSES | _ENDS),
    State.DELAYED: frozenset(_CHOOSES | _ENDS),
    State.CONNECTING: frozenset({State.SENDING, State.WAITING} | _ATTEMPT_FAILS),
    State.SENDING: frozenset({State.WAITING, State.HOLDING, State.STREAMING} | _ATTEMPT_FAILS),
    State.WAITING: frozenset({State.HOLDING, State.STREAMING, State.TUNNEL} | _ATTEMPT_FAILS),
    State.HOLDING: frozenset({State.STREAMING} | _ATTEMPT_FAILS),
    State.STREAMING: frozenset({State.DONE}),
    State.ANSWERING: frozenset({State.DONE}),
    State.TUNNEL: frozenset({State.DONE}),
    State.DONE: frozenset(),
}


def may_follow(state: State, following: State) -> bool:
    """Whether an exchange may go from `state` to `following`."""
    return following in TRANSITIONS[state]


class Cause(StrEnum):
    """Why an exchange ended as it did: one word, in the access log and in X-Arv-Balance on our own answers."""

    OK = "ok"
    # our answers to what the client did
    MALFORMED = "malformed"
    TOO_LARGE = "too-large"
    NOT_SERVED = "not-served"
    EXPECTATION = "expectation"
    HEADER_TIMEOUT = "header-timeout"
    BODY_TIMEOUT = "body-timeout"
    BODY_SLOW = "body-slow"
    BAD_CHUNK = "bad-chunk"
    TUNNELS_FULL = "tunnels-full"
    CONNECTIONS_FULL = "connections-full"
    PLAIN_ON_TLS = "plain-on-tls"
    # our answers to waiting in vain
    PARK_FULL = "park-full"
    PARK_TIMEOUT = "park-timeout"
    PAUSED = "paused"
    NO_NODE = "no-node"
    QUEUE_FULL = "queue-full"
    QUEUE_TIMEOUT = "queue-timeout"
    STOPPING = "stopping"
    CUT = "cut"
    # our answers to what a node did
    NODE_REFUSED = "node-refused"
    NODE_RESET = "node-reset"
    NODE_TRUNCATED = "node-truncated"
    NODE_PROTOCOL = "node-protocol"
    NODE_TIMEOUT = "node-timeout"
    # no answer, or not all of one
    CLIENT_LEFT = "client-left"
    CLIENT_STALLED = "client-stalled"
    NODE_CUT = "node-cut"
    NODE_STALLED = "node-stalled"
    STOPPED = "stopped"
    TUNNEL_CLOSED = "tunnel-closed"
    TUNNEL_IDLE = "tunnel-idle"


# Status of our own answer for a cause; causes that are not here have none of their own.
STATUS: Final[dict[Cause, int]] = {
    Cause.HEADER_TIMEOUT: 408,
    Cause.BODY_TIMEOUT: 408,
    Cause.BODY_SLOW: 408,
    Cause.BAD_CHUNK: 400,
    Cause.PLAIN_ON_TLS: 400,
    Cause.TOO_LARGE: 413,
    Cause.TUNNELS_FULL: 503,
    Cause.CONNECTIONS_FULL: 503,
    Cause.PARK_FULL: 503,
    Cause.PARK_TIMEOUT: 503,
    Cause.PAUSED: 503,
    Cause.NO_NODE: 503,
    Cause.QUEUE_FULL: 503,
    Cause.QUEUE_TIMEOUT: 503,
    Cause.STOPPING: 503,
    Cause.CUT: 503,
    Cause.NODE_REFUSED: 502,
    Cause.NODE_RESET: 502,
    Cause.NODE_TRUNCATED: 502,
    Cause.NODE_PROTOCOL: 502,
    Cause.NODE_TIMEOUT: 504,
}

# What people read in our own answers.
TEXT: Final[dict[Cause, str]] = {
    Cause.HEADER_TIMEOUT: "the request head did not arrive in time",
    Cause.BODY_TIMEOUT: "the request body did not arrive in time",
    Cause.BODY_SLOW: "the request body arrives too slowly",
    Cause.BAD_CHUNK: "the chunked request body is malformed",
    Cause.TOO_LARGE: "the request body is too large",
    Cause.TUNNELS_FULL: "too many upgraded connections are open",
    Cause.CONNECTIONS_FULL: "too many connections are open",
    Cause.PLAIN_ON_TLS: "this port speaks TLS: write https:// instead of http://",
    Cause.PARK_FULL: "too many requests are waiting already",
    Cause.PARK_TIMEOUT: "no node became available in time",
    Cause.PAUSED: "the service is paused",
    Cause.NO_NODE: "no node is available",
    Cause.QUEUE_FULL: "all nodes are busy and the queue is full",
    Cause.QUEUE_TIMEOUT: "all nodes stayed busy",
    Cause.STOPPING: "the balancer is stopping",
    Cause.CUT: "it took longer than the service could wait before a pause",
    Cause.NODE_REFUSED: "no connection to a node could be made",
    Cause.NODE_RESET: "the node closed the connection before answering",
    Cause.NODE_TRUNCATED: "the node closed the connection inside its answer",
    Cause.NODE_PROTOCOL: "the node's answer is malformed",
    Cause.NODE_TIMEOUT: "the node did not answer in time",
}

REASON_PHRASES: Final[dict[int, bytes]] = {
    400: b"Bad Request",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Content Too Large",
    414: b"URI Too Long",
    417: b"Expectation Failed",
    421: b"Misdirected Request",
    431: b"Request Header Fields Too Large",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
}

NO_ANSWER: Final[dict[Cause, Outcome]] = {
    Cause.CLIENT_LEFT: Outcome.CLIENT_LEFT,
    Cause.CLIENT_STALLED: Outcome.CLIENT_LEFT,
    Cause.NODE_CUT: Outcome.NODE_CUT,
    Cause.NODE_STALLED: Outcome.NODE_CUT,
    Cause.STOPPED: Outcome.US,
}
