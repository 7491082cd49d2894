"""Who is logged in: sessions by token or by a code that is good once; kept over restarts, only as hashes."""

import asyncio
import hashlib
import hmac
import logging
import secrets
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from balancer.control.admin.access import Caller, Role, Token, find_token
from balancer.control.admin.services import CODE_S
from balancer.control.site import Clock
from balancer.control.statefile import StateFile
from balancer.errors import StateError

logger = logging.getLogger(__name__)

SESSION_S = 12 * 3600.0
MAX_SESSIONS = 200
MAX_CODES = 20
TRIES = 10  # wrong ones from an address in
TRIES_S = 60.0
MAX_ADDRESSES = 1000


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who is logged in. `token`: fingerprint of the token that it stands on, "" when a code opened it."""

    name: str
    role: str
    token: str
    until: str  # RFC 3339


class Sessions:
    """The cookies that are out. What is kept is their hash: who reads the file cannot log in with it."""

    def __init__(self, file: StateFile, clock: Clock) -> None:
        self._file = file
        self._clock = clock
        self._known: dict[str, Session] = {}
        self._codes: dict[str, tuple[Caller, float]] = {}
        self._lock = asyncio.Lock()

    async def load(self) -> None:
        """Take up the sessions of before; ones that cannot be read are logged out."""
        loaded = await asyncio.to_thread(self._file.load)
        kept: Any = (loaded.document or {}).get("sessions", {})
        if loaded.damage:
            logger.warning("sessions cannot be read, all are logged out", extra={"error": loaded.damage})
        try:
            self._known = {key: Session(**item) for key, item in kept.items()}
        except (AttributeError, TypeError) as exc:
            logger.warning("sessions cannot be read, all are logged out", extra={"error": str(exc)})

    def caller(self, cookie: str, tokens: Sequence[Token]) -> Caller | None:
        """Return whose cookie it is, None when nobody's (any more). A token's role is the one it has now."""
        session = self._known.get(_hash(cookie)) if cookie else None
        if session is None or datetime.fromisoformat(session.until) <= self._clock.now():
            return None
        if not session.token:
            return Caller(session.name, Role[session.role])
        token = next((item for item in tokens if item.name == session.name), None)
        if token is None or not hmac.compare_digest(fingerprint(token), session.token):
            return None  # the token was taken away or replaced
        return Caller(token.name, token.role)

    def offer_code(self, caller: Caller) -> str:
        """Return a code that logs in as `caller` once, within CODE_S."""
        now_s = self._clock.monotonic()
        self._codes = {key: item for key, item in self._codes.items() if item[1] > now_s}
        while len(self._codes) >= MAX_CODES:
            del self._codes[next(iter(self._codes))]
        code = secrets.token_urlsafe(24)
        self._codes[_hash(code)] = (caller, now_s + CODE_S)
        return code

    async def open(self, secret: str, tokens: Sequence[Token]) -> str | None:
        """Return the cookie of a new session for a token or a code, None when it is neither."""
        until = self._clock.after(SESSION_S).isoformat()
        token = find_token(secret.encode(), tokens)
        if token is not None:
            session = Session(token.name, token.role.name, fingerprint(token), until)
        else:
            caller, good_until_s = self._codes.pop(_hash(secret), (None, 0.0))
            if caller is None or good_until_s <= self._clock.monotonic():
                return None
            session = Session(caller.name, caller.role.name, "", until)
        cookie = secrets.token_urlsafe(32)
        await self._keep({**self._known, _hash(cookie): session})
        return cookie

    async def close(self, cookie: str) -> None:
        """Log out."""
        await self._keep({key: item for key, item in self._known.items() if key != _hash(cookie)})

    async def _keep(self, known: dict[str, Session]) -> None:
        now = self._clock.now()
        live = [(key, item) for key, item in known.items() if datetime.fromisoformat(item.until) > now]
        self._known = dict(live[-MAX_SESSIONS:])
        async with self._lock:
            document = {"sessions": {key: asdict(item) for key, item in self._known.items()}}
            try:
                await asyncio.to_thread(self._file.save, document)
            except StateError as exc:  # it holds until the next restart
                logger.warning("sessions cannot be kept", extra={"error": str(exc)})


class Tries:
    """Counts wrong logins by address, so that guessing is slow."""

    def __init__(self) -> None:
        self._wrong: dict[str, deque[float]] = {}

    def wait_s(self, address: str, now_s: float) -> float:
        """Return for how long this address has to wait, 0 when it may try."""
        wrong = self._wrong.get(address)
        while wrong and now_s - wrong[0] >= TRIES_S:
            wrong.popleft()
        return TRIES_S - (now_s - wrong[0]) if wrong and len(wrong) >= TRIES else 0.0

    def wrong(self, address: str, now_s: float) -> None:
        """Note a wrong login."""
        if address not in self._wrong and len(self._wrong) >= MAX_ADDRESSES:
            del self._wrong[next(iter(self._wrong))]
        self._wrong.setdefault(address, deque(maxlen=TRIES)).append(now_s)

    def right(self, address: str) -> None:
        """Forget what an address got wrong."""
        self._wrong.pop(address, None)


def fingerprint(token: Token) -> str:
    """Return what tells a token from its successor of the same name."""
    return hmac.new(token.secret, b"arv-balance session", hashlib.sha256).hexdigest()


def form_token(secret: str) -> str:
    """Return the token that forms carry for whoever has this cookie (or other secret); it does not tell the secret."""
    return hmac.new(secret.encode(), b"arv-balance form", hashlib.sha256).hexdigest()


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()  # a cookie may hold any bytes
