"""Browser logins: what a browser carries from one node to the next, and whose token it gets in the end.

No node keeps anything of a login that is under way. It is a signed state, made and read with the system root token
that all nodes share; its age is measured by the database's clock, and its nonce is used once, by a row.
"""

import base64
import binascii
import hmac
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from apiserver.acting import as_system
from apiserver.errors import BadRequestError, ForbiddenError, NotFoundError, NotLoggedInError
from apiserver.operation import Call, Operation, Parameter, Reply
from apiserver.resources.tokens import Tokens
from apiserver.resources.users import Users
from apiserver.settings import Settings
from apiserver.store.pool import Lock
from apiserver.store.queries import load

_QUERIES = load("login")
VALID_S = 300
_STATE_PURPOSE = b"arv-api login state\n"


@dataclass(frozen=True, slots=True)
class State:
    """A login under way: `nonce` binds it to a browser's cookie, `begun` is in Unix seconds by the database's clock."""

    nonce: str
    begun: int
    return_to: str


@dataclass(frozen=True, slots=True)
class Profile:
    """What the identity provider says of a user."""

    identity: str  # issuer and subject
    email: str
    first_name: str
    last_name: str


def new_nonce() -> str:
    """Return 256 random bits as text."""
    return secrets.token_urlsafe(32)


def sealed(state: State, key: str) -> str:
    """Return the state as text that nobody without the key can make."""
    body = base64.urlsafe_b64encode(json.dumps([state.nonce, state.begun, state.return_to]).encode()).decode()
    return f"{body}.{_seal(body, key)}"


def opened(text: str, key: str) -> State:
    """Return the state in a sealed text.

    Raises:
        BadRequestError: it was not sealed with the key.
    """
    body, _, seal = text.partition(".")
    if not hmac.compare_digest(seal.encode("utf-8", "surrogateescape"), _seal(body, key).encode()):
        raise BadRequestError("this login was not begun here: begin again")
    try:
        nonce, begun, return_to = json.loads(base64.urlsafe_b64decode(body))
    except (ValueError, binascii.Error) as exc:
        raise BadRequestError("this login cannot be read: begin again") from exc
    return State(str(nonce), int(begun), str(return_to))


def _seal(body: str, key: str) -> str:
    return hmac.new(key.encode(), _STATE_PURPOSE + body.encode("utf-8", "surrogateescape"), "sha256").hexdigest()


def require_destination(return_to: str, settings: Settings) -> str:
    """Return where a browser may be sent with a token: the origin must be one that the configuration names.

    Raises:
        BadRequestError: it is none.
    """
    ours = (settings.external_url, settings.external_urls.get("Workbench1"), settings.external_urls.get("Workbench2"))
    allowed = {_origin(url) for url in (*ours, *settings.login.trusted_clients) if url}
    if not return_to:
        return settings.external_urls.get("Workbench2") or settings.external_url
    if _origin(return_to) not in allowed or any(char.isspace() or char == "\\" for char in return_to):
        raise BadRequestError("return_to is not on a site that this cluster trusts (Login.TrustedClients)")
    return return_to


def _origin(url: str) -> tuple[str, str, int | None]:
    """Return scheme, host and port; what is no http(s) URL has an origin that no configured one has."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return ("", url, -1)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        return ("", url, -1)
    return (parts.scheme, parts.hostname, port)


def with_query(url: str, values: Mapping[str, str]) -> str:
    """Return a URL with more parameters in its query."""
    parts = urlsplit(url)
    query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), *values.items()], safe="/")
    return urlunsplit(parts._replace(query=query))


def profile_of(claims: Mapping[str, Any], issuer: str) -> Profile:
    """Return the profile in an OpenID Connect provider's answer.

    Raises:
        ForbiddenError: it does not say who it is, or that the address was verified.
    """
    subject, email = claims.get("sub"), claims.get("email")
    if not isinstance(subject, str) or not subject or not isinstance(email, str) or "@" not in email:
        raise ForbiddenError("the identity provider did not say who you are (sub and email)")
    if claims.get("email_verified") is not True:
        raise ForbiddenError("the identity provider has not verified your email address")
    given, family = claims.get("given_name"), claims.get("family_name")
    if not isinstance(given, str) or not isinstance(family, str):
        given, _, family = str(claims.get("name") or "").rpartition(" ")
    return Profile(f"{issuer.rstrip('/')}#{subject}", email, given, family)


def profile_by_password(settings: Settings, username: object, password: object) -> Profile:
    """Return who a name and a password of the configuration belong to.

    Raises:
        NotFoundError: the configuration has none.
        NotLoggedInError: they are wrong.
    """
    known = settings.login.test_users
    if not known:
        raise NotFoundError("login by password is not configured (Login.Test)")
    given = str(password or "").encode("utf-8", "surrogateescape")
    found = None
    for user in known:  # all of them, so that the time tells nothing
        if hmac.compare_digest(given, user.password.encode()) and user.password and username == user.name:
            found = user
    if found is None:
        raise NotLoggedInError("Authentication failure")
    return Profile(f"test#{found.name}", found.email, found.name, "")


class Logins:
    """The parts of a login that need the database, as operations; only `authenticate` is in the discovery document."""

    def __init__(self) -> None:
        self._users, self._tokens = Users(), Tokens()
        self.begin = Operation("login", "begin", "GET", "login", self._begin, public=True)
        self.finish = Operation("login", "finish", "GET", "login", self._finish, write=True, public=True,
                                locks=lambda _: (Lock.PERMISSIONS,))  # fmt: skip
        self.logout = Operation("login", "logout", "GET", "logout", self._logout, write=True)
        names = (Parameter("username", "string", True), Parameter("password", "string", True))
        self.authenticate = Operation(
            "users", "authenticate", "POST", "users/authenticate", self._authenticate, names, "ApiClientAuthorization",
            write=True, public=True, locks=lambda _: (Lock.PERMISSIONS,),
        )  # fmt: skip

    async def _begin(self, call: Call) -> Reply:
        """Answer the database's time."""
        return Reply({"now": await call.session.value(_QUERIES["now"])})

    async def _finish(self, call: Call) -> Reply:
        """Use the state up; answer a new token of the user, who is made if need be.

        Raises:
            BadRequestError: the state is too old or was used before.
        """
        state: State = call.parameters["state"]
        profile: Profile = call.parameters["profile"]
        if not await call.session.value(_QUERIES["use"], state.nonce, state.begun, VALID_S):
            raise BadRequestError("this login took too long or was finished before: begin again")
        token = await self._token(call, profile)
        return Reply({"token": f"v2/{token['uuid']}/{token['api_token']}"})

    async def _authenticate(self, call: Call) -> Reply:
        """Answer a new token of the user whose name and password came."""
        given = call.parameters
        return Reply(
            await self._token(call, profile_by_password(call.settings, given.get("username"), given.get("password")))
        )

    async def _token(self, call: Call, profile: Profile) -> Any:
        """Return a new token of the user, who is made if need be."""
        uuid = await self._user(call, profile)
        lifetime = call.settings.api.max_token_lifetime_s or None
        making = as_system(call)
        making.parameters = {
            "api_client_authorization": {
                "owner_uuid": uuid,
                "expires_at": await call.session.value(_QUERIES["expiry"], lifetime),
            }
        }
        return (await self._tokens.create(making)).body

    async def _user(self, call: Call, profile: Profile) -> str:
        """Return the user with that identity, else the one with that address, else a new one."""
        row = await call.session.row(_QUERIES["user"], profile.identity, profile.email)
        making = as_system(call)
        if row is None:
            making.parameters = {
                "user": {
                    "email": profile.email, "first_name": profile.first_name, "last_name": profile.last_name,
                    "identity_url": profile.identity,
                }
            }  # fmt: skip
            return str((await self._users.create(making)).body["uuid"])
        if row["identity_url"] is None:
            making.uuid, making.parameters = row["uuid"], {"user": {"identity_url": profile.identity}}
            await self._users.update(making)
        return str(row["uuid"])

    async def _logout(self, call: Call) -> Reply:
        """End the token of this request, on all nodes at once."""
        row = await call.session.value(_QUERIES["stored_token"], call.viewer.token_uuid)
        if row is None:
            raise NotFoundError("a token of the configuration has no end")
        draft = await self._tokens.fetch(call, call.viewer.token_uuid)
        draft.new["expires_at"] = await call.session.value(_QUERIES["expiry"], 0.0)
        await self._tokens.store(call, draft)
        return Reply({})


def cookie_matches(cookie: str, state: State) -> bool:
    """Return whether the browser that comes back is the one that left."""
    return hmac.compare_digest(cookie.encode("utf-8", "surrogateescape"), state.nonce.encode())


def endpoints(found: Any, names: Iterable[str]) -> dict[str, str]:
    """Return the addresses in an OpenID Connect provider's own document.

    Raises:
        ForbiddenError: one is missing.
    """
    found = found if isinstance(found, dict) else {}
    missing = [name for name in names if not isinstance(found.get(name), str)]
    if missing:
        raise ForbiddenError(f"the identity provider does not say its {missing[0]}")
    return {name: found[name] for name in names}
