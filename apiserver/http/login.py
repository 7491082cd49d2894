"""`/login` and `/logout`: a browser is sent to the identity provider, comes back to any node, and gets its token."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import aiohttp
from aiohttp import web

from apiserver.auth import Credentials
from apiserver.dispatch import Dispatcher, Request
from apiserver.errors import BadRequestError, ForbiddenError, NotFoundError, NotLoggedInError, UnavailableError
from apiserver.http.request import Network, Parsed, facts, parse
from apiserver.login import (
    VALID_S,
    Logins,
    Profile,
    State,
    cookie_matches,
    endpoints,
    new_nonce,
    opened,
    profile_of,
    require_destination,
    sealed,
    with_query,
)
from apiserver.operation import Operation
from apiserver.settings import Settings

COOKIE = "arv_login"
PROVIDER_S = 10.0
MAX_URL = 4096


class LoginPages:
    """The two pages. The provider is asked anew for each login: nothing of it is kept."""

    def __init__(self, settings: Settings, dispatcher: Dispatcher, trusted: tuple[Network, ...]) -> None:
        self._settings = settings
        self._dispatcher = dispatcher
        self._trusted = trusted
        self._logins = Logins()

    async def login(self, request: web.Request, identity: str) -> web.Response:
        """Send a browser away to log in, or welcome it back with the provider's code."""
        if not self._settings.login.issuer:
            raise NotFoundError("login by browser is not configured (Login.OpenIDConnect)")
        if request.method not in ("GET", "HEAD"):
            raise NotFoundError
        query = dict(parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True, errors="replace"))
        if "error" in query:
            raise ForbiddenError(f"the identity provider refused: {query['error'][:80]}")
        parsed = Parsed("GET", "/login", [], Credentials(()))
        if "code" in query:
            return await self._finish(request, parsed, identity, query)
        return await self._begin(request, parsed, identity, query.get("return_to", ""))

    async def _begin(self, request: web.Request, parsed: Parsed, identity: str, return_to: str) -> web.Response:
        if len(return_to) > MAX_URL:
            raise BadRequestError("return_to is too long")
        rules, return_to = self._settings.login, require_destination(return_to, self._settings)
        answer = await self._run(self._logins.begin, request, parsed, identity, {})
        state = State(new_nonce(), answer["now"], return_to)
        async with _provider() as http:
            address = (await self._endpoints(http, "authorization_endpoint"))["authorization_endpoint"]
        response = _redirect(with_query(address, {
            "response_type": "code", "scope": "openid email profile", "client_id": rules.client_id,
            "redirect_uri": self._redirect_uri(), "state": sealed(state, self._settings.system_root_token),
        }))  # fmt: skip
        response.set_cookie(
            COOKIE, state.nonce, max_age=VALID_S, path="/login", httponly=True, samesite="Lax",
            secure=self._settings.external_url.startswith("https:"),
        )  # fmt: skip
        return response

    async def _finish(
        self, request: web.Request, parsed: Parsed, identity: str, query: Mapping[str, str]
    ) -> web.Response:
        state = opened(query.get("state", ""), self._settings.system_root_token)
        if not cookie_matches(request.cookies.get(COOKIE, ""), state):
            raise BadRequestError("this login was begun in another browser: begin again")
        return_to = require_destination(state.return_to, self._settings)
        profile = await self._profile(query["code"])
        found = await self._run(self._logins.finish, request, parsed, identity, {"state": state, "profile": profile})
        response = _redirect(with_query(return_to, {"api_token": found["token"]}))
        response.del_cookie(COOKIE, path="/login")
        return response

    async def logout(self, request: web.Request, identity: str) -> web.Response:
        """End the token that came along and send the browser on; without a valid one there is nothing to end."""
        parsed = await parse(request, self._settings.api.max_request_size)
        wanted = dict(parsed.pairs).get("return_to", "")
        return_to = require_destination(wanted if isinstance(wanted, str) else "", self._settings)
        try:
            await self._run(self._logins.logout, request, parsed, identity, {})
        except (NotLoggedInError, NotFoundError):
            return _redirect(return_to)
        return _redirect(return_to)

    async def _run(
        self, operation: Operation, request: web.Request, parsed: Parsed, identity: str, values: dict[str, Any]
    ) -> Any:
        known = facts(request, parsed, identity, self._trusted)
        answer = await self._dispatcher.run(Request(operation, "", values, parsed.credentials, known))
        return json.loads(answer.body)

    # -- the provider

    def _redirect_uri(self) -> str:
        return self._settings.external_url.rstrip("/") + "/login"

    async def _endpoints(self, http: aiohttp.ClientSession, *names: str) -> dict[str, str]:
        issuer = self._settings.login.issuer.rstrip("/")
        return endpoints(await _answer(http, "GET", f"{issuer}/.well-known/openid-configuration"), names)

    async def _profile(self, code: str) -> Profile:
        """Return whom the provider gave the code to.

        The profile is asked for with the access token over the provider's own connection, so that no signature of
        an id token has to be checked (OpenID Connect Core 1.0, section 5.3).
        """
        rules = self._settings.login
        async with _provider() as http:
            known = await self._endpoints(http, "token_endpoint", "userinfo_endpoint")
            form = {
                "grant_type": "authorization_code", "code": code, "redirect_uri": self._redirect_uri(),
                "client_id": rules.client_id, "client_secret": rules.client_secret,
            }  # fmt: skip
            granted = await _answer(http, "POST", known["token_endpoint"], data=form)
            token = granted.get("access_token") if isinstance(granted, dict) else None
            if not isinstance(token, str):
                raise ForbiddenError("the identity provider gave no access token")
            headers = {"Authorization": f"Bearer {token}"}
            claims = await _answer(http, "GET", known["userinfo_endpoint"], headers=headers)
        return profile_of(claims if isinstance(claims, dict) else {}, rules.issuer)


def _provider() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PROVIDER_S), trust_env=True)


async def _answer(http: aiohttp.ClientSession, method: str, url: str, **more: Any) -> Any:
    """Return the JSON that the provider answers.

    Raises:
        ForbiddenError: it refuses.
        UnavailableError: it does not answer, or not in JSON.
    """
    try:
        async with http.request(method, url, allow_redirects=False, **more) as response:
            if 400 <= response.status < 500:
                raise ForbiddenError("the identity provider refused this login: begin again")
            if response.status != 200:
                raise UnavailableError(f"the identity provider answered {response.status}")
            return await response.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
        raise UnavailableError(f"the identity provider does not answer: {type(exc).__name__}") from exc


def _redirect(address: str) -> web.Response:
    return web.Response(status=303, headers={"Location": address, "Cache-Control": "no-store"})
