"""Who comes in to the dashboard, and whether a form may act in their name."""

import hmac
import secrets
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiohttp import web

from balancer.control.admin.access import Caller, Role, check_origin, unix_caller
from balancer.control.admin.app import Gate, asked
from balancer.control.admin.problem import ProblemError
from balancer.control.dashboard.sessions import SESSION_S, Sessions, form_token

# Everything comes from files of ours: nothing that slips into a page as text can become a script or a style.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    # With no-referrer browsers would send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class LoginNeededError(Exception):
    """Nobody is logged in."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks at a page. `form_token` has to come back with every form; `cookie` is "" without a session."""

    caller: Caller
    form_token: str
    cookie: str = ""


class Door:
    """Decides by socket, cookie and Host."""

    def __init__(self, gate: Gate, sessions: Sessions) -> None:
        self._gate = gate
        self._sessions = sessions
        self._secret = secrets.token_hex(16)  # of the forms of those who need no cookie

    def visitor(self, request: web.Request) -> Visitor:
        """Return who asks. Raises LoginNeededError, ProblemError for a Host that is not ours."""
        self.check_host(request)
        tokens = self._gate.tokens()
        cookie = request.cookies.get(cookie_name(request), "")
        caller = self._sessions.caller(cookie, tokens)
        if caller is not None:
            return Visitor(caller, form_token(cookie), cookie)
        sock = request.transport.get_extra_info("socket") if request.transport is not None else None
        if sock is not None and sock.family == socket.AF_UNIX:
            caller = unix_caller(sock)
        elif not tokens and asked(request).is_loopback:
            caller = Caller("loopback", Role.VIEWER)
        else:
            raise LoginNeededError
        return Visitor(caller, form_token(f"{self._secret} {caller.name}"))

    def check_host(self, request: web.Request) -> None:
        """Refuse other hosts' names, so that no page can come here under its own (DNS rebinding), and foreign forms.

        Raises ProblemError.
        """
        check_origin(asked(request), self._gate.hosts())

    def check_form(self, visitor: Visitor, sent: str) -> None:
        """Raise ProblemError unless the form is one that we gave this visitor."""
        if not hmac.compare_digest(visitor.form_token.encode(), sent.encode()):
            raise ProblemError(
                403, "this form is not of this session", why="nothing was changed", hint="load the page again"
            )


def cookie_name(request: web.Request) -> str:
    """Return the cookie's name: cookies do not tell ports apart, and two balancers may be on one machine."""
    try:
        port = urlsplit(f"//{request.headers.get('Host', '')}").port
    except ValueError:
        port = None
    return f"arv-balance-{port or 'web'}"


def set_cookie(response: web.StreamResponse, request: web.Request, cookie: str) -> None:
    """Hand out a session. It goes over TLS alone when the login came that way, by a proxy before us."""
    response.set_cookie(
        cookie_name(request),
        cookie,
        max_age=int(SESSION_S),
        path="/ui/",
        httponly=True,
        samesite="Strict",
        secure=request.headers.get("Origin", "").startswith("https://"),
    )
