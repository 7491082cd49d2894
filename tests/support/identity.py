"""An OpenID Connect provider on loopback: everybody who comes is the user it was told, each code is good once."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Provider:
    """`claims` is what it says of the user; `codes` are those given out and not yet used."""

    issuer: str = ""
    claims: dict[str, Any] = field(default_factory=dict)
    codes: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    secret: str = "providers-client-secret"

    async def _document(self, request: web.Request) -> web.Response:
        names = ("authorization", "token", "userinfo")
        return web.json_response({f"{name}_endpoint": f"{self.issuer}/{name}" for name in names})

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        if form.get("client_secret") != self.secret or form.get("code") not in self.codes:
            return web.json_response({"error": "invalid_grant"}, status=400)
        self.codes.remove(str(form["code"]))
        token = secrets.token_hex()
        self.tokens.add(token)
        return web.json_response({"access_token": token, "token_type": "Bearer"})

    async def _userinfo(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            return web.json_response({}, status=401)
        return web.json_response(self.claims)

    def code(self) -> str:
        """The user has logged in: return what its browser is sent back with."""
        made = secrets.token_hex()
        self.codes.add(made)
        return made


@asynccontextmanager
async def provider() -> AsyncIterator[Provider]:
    """Run one."""
    found = Provider()
    application = web.Application()
    application.router.add_get("/.well-known/openid-configuration", found._document)
    application.router.add_post("/token", found._token)
    application.router.add_get("/userinfo", found._userinfo)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        found.issuer = "http://{}:{}".format(*runner.addresses[0][:2])
        yield found
    finally:
        await runner.cleanup()
