"""Sessions and login codes: what opens them, what ends them, what is kept."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from balancer.control.admin.access import Caller, Role, Token
from balancer.control.admin.services import CODE_S
from balancer.control.dashboard.sessions import SESSION_S, TRIES, TRIES_S, Sessions, Tries, form_token
from balancer.control.site import Clock
from balancer.control.statefile import StateFile

TOKENS = (Token("hand", Role.OPERATOR, b"operator-token"), Token("head", Role.ADMIN, b"admin-token"))
UNREADABLE = b"{"


class Hands:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.passed_s = 0.0

    def clock(self) -> Clock:
        start = datetime(2030, 1, 1, tzinfo=UTC)
        return Clock(now=lambda: start + timedelta(seconds=self.passed_s), monotonic=lambda: self.passed_s)


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.json"


def made(path: Path, hands: Hands) -> Sessions:
    return Sessions(StateFile(path, stamp=lambda: "x"), hands.clock())


async def opened(sessions: Sessions, secret: str) -> str:
    cookie = await sessions.open(secret, TOKENS)
    assert cookie is not None
    return cookie


async def test_a_token_opens_a_session_with_its_role(path: Path, hands: Hands) -> None:
    sessions = made(path, hands)
    cookie = await opened(sessions, "operator-token")
    assert sessions.caller(cookie, TOKENS) == Caller("hand", Role.OPERATOR)
    assert await sessions.open("wrong", TOKENS) is None
    assert await sessions.open("", (Token("empty", Role.ADMIN, b""),)) is None
    assert sessions.caller("", TOKENS) is None
    assert sessions.caller("no cookie of ours", TOKENS) is None


async def test_a_session_survives_a_restart_and_the_file_opens_nothing(path: Path, hands: Hands) -> None:
    cookie = await opened(made(path, hands), "admin-token")
    again = made(path, hands)
    await again.load()
    assert again.caller(cookie, TOKENS) == Caller("head", Role.ADMIN)
    kept = await asyncio.to_thread(path.read_text)
    assert cookie not in kept
    assert "admin-token" not in kept


async def test_a_session_ends_by_log_out_by_time_and_with_its_token(path: Path, hands: Hands) -> None:
    sessions = made(path, hands)
    left, old, replaced = [await opened(sessions, "operator-token") for _ in range(3)]
    await sessions.close(left)
    assert sessions.caller(left, TOKENS) is None
    assert sessions.caller(replaced, (Token("hand", Role.OPERATOR, b"another-token"),)) is None
    assert sessions.caller(replaced, ()) is None
    assert sessions.caller(replaced, TOKENS) is not None
    hands.passed_s = SESSION_S - 1
    assert sessions.caller(old, TOKENS) is not None
    hands.passed_s = SESSION_S
    assert sessions.caller(old, TOKENS) is None


async def test_a_role_that_is_taken_away_is_gone_at_once(path: Path, hands: Hands) -> None:
    sessions = made(path, hands)
    cookie = await opened(sessions, "admin-token")
    assert sessions.caller(cookie, (Token("head", Role.VIEWER, b"admin-token"),)) == Caller("head", Role.VIEWER)


async def test_a_code_is_good_once_and_soon(path: Path, hands: Hands) -> None:
    sessions, root = made(path, hands), Caller("root", Role.ADMIN)
    code = sessions.offer_code(root)
    cookie = await opened(sessions, code)
    assert sessions.caller(cookie, ()) == root
    assert await sessions.open(code, TOKENS) is None
    late = sessions.offer_code(root)
    hands.passed_s = CODE_S
    assert await sessions.open(late, TOKENS) is None


async def test_an_unreadable_file_logs_everybody_out_and_no_more(path: Path, hands: Hands) -> None:
    await asyncio.to_thread(path.write_bytes, UNREADABLE)
    sessions = made(path, hands)
    await sessions.load()
    assert sessions.caller(await opened(sessions, "admin-token"), TOKENS) is not None


def test_guessing_is_slow_for_the_address_that_guesses() -> None:
    tries = Tries()
    for _ in range(TRIES):
        assert tries.wait_s("10.0.0.1", 5.0) == 0
        tries.wrong("10.0.0.1", 5.0)
    assert tries.wait_s("10.0.0.1", 6.0) == TRIES_S - 1
    assert tries.wait_s("10.0.0.2", 6.0) == 0
    assert tries.wait_s("10.0.0.1", 5.0 + TRIES_S) == 0
    tries.right("10.0.0.1")
    assert tries.wait_s("10.0.0.1", 6.0) == 0


def test_a_form_token_is_of_one_cookie_and_does_not_tell_it() -> None:
    assert form_token("one") == form_token("one") != form_token("another")
    assert "one" not in form_token("one")
