"""Errors of the admin API: what happened, why, and what to try, as a problem object (RFC 9457)."""

import json
import logging
from typing import Any

from aiohttp import web

from balancer.control.actions import GuardError, UnknownNameError
from balancer.errors import BalanceError, ConfigError, RefusedError, StateError, WireError

SCHEMA = "arv-balance/problem/v1"
CONTENT_TYPE = "application/problem+json"

logger = logging.getLogger(__name__)


class ProblemError(Exception):
    """A request that cannot be done. `facts` are members of the answer beside what, why and try."""

    def __init__(self, status: int, what: str, *, why: str = "", hint: str = "", **facts: Any) -> None:
        super().__init__(what)
        self.status, self.what, self.why, self.hint, self.facts = status, what, why, hint, facts

    def document(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "schema": SCHEMA,
            "status": self.status,
            "title": self.what,
            "what": self.what,
            "why": self.why,
            "try": self.hint,
            **self.facts,
        }


def from_error(exc: BalanceError) -> ProblemError:
    """Return the problem for one of our own errors."""
    match exc:
        case GuardError():
            return ProblemError(409, str(exc), why="nothing was changed", hint="the same with --force", kind="guard")
        case UnknownNameError():
            return ProblemError(404, str(exc), why=exc.why, hint=exc.hint)
        case RefusedError():
            return ProblemError(409, str(exc), kind="refused")
        case ConfigError():
            return ProblemError(422, str(exc), kind="invalid-config")
        case StateError():
            return ProblemError(507, "nothing was changed: the state cannot be written", why=str(exc), kind="state")
        case WireError():
            return ProblemError(503, "a process of ours does not answer", why=str(exc), kind="process")
        case _:
            return ProblemError(500, str(exc), kind="failed")


def answer(problem: ProblemError) -> web.Response:
    """Return the response for a problem."""
    headers = {"WWW-Authenticate": "Bearer"} if problem.status == 401 else None
    body = json.dumps(problem.document(), default=str).encode() + b"\n"
    return web.Response(status=problem.status, body=body, content_type=CONTENT_TYPE, headers=headers)
