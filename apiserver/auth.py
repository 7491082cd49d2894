"""Who is asking: tokens in all their forms, their scopes, and the user that a request acts as."""

import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from apiserver.errors import ForbiddenError, NotLoggedInError
from apiserver.names import ANONYMOUS_SUFFIX, SYSTEM_SUFFIX, TOKEN, anonymous_user, is_uuid, system_user
from apiserver.settings import Settings
from apiserver.store.pool import Session
from apiserver.store.queries import load

_QUERIES = load("auth")
MAX_READER_TOKENS = 100
CURRENT_TOKEN_PATH = "/arvados/v1/api_client_authorizations/current"  # noqa: S105


@dataclass(frozen=True, slots=True)
class Viewer:
    """The user and token that a request acts as.

    Attributes:
        read_users: whose permissions count for reading: the user, and the owners of reader tokens.
        presented: the secret as the client sent it; block signatures are made with it.
    """

    user_uuid: str
    is_admin: bool
    is_active: bool
    token_uuid: str
    scopes: tuple[str, ...]
    presented: str
    read_users: tuple[str, ...]
    remote: str = ""

    @property
    def is_stored(self) -> bool:
        """Whether the token is a row, which may end; those of the configuration are good as long as the node runs."""
        return not self.token_uuid.endswith((SYSTEM_SUFFIX, ANONYMOUS_SUFFIX))

    @property
    def unrestricted(self) -> bool:
        """Whether the token may do all that its user may."""
        return "all" in self.scopes


@dataclass(frozen=True, slots=True)
class Credentials:
    """The tokens of one request, in the order in which they are tried."""

    tokens: tuple[str, ...]
    reader_tokens: tuple[str, ...] = ()
    remote: str = ""


def scope_allows(scopes: Sequence[str], method: str, path: str) -> bool:
    """Return whether a token's scopes allow a request; `method` is the one after override."""
    if "all" in scopes:
        return True
    method = "GET" if method == "HEAD" else method
    if method == "GET" and path == CURRENT_TOKEN_PATH:
        return True
    asked = f"{method} {path}"
    return any(asked == scope or (scope.endswith("/") and asked.startswith(scope)) for scope in scopes)


class Authenticator:
    """Turns credentials into a viewer; keeps nothing, so that a revoked token ends at once on every node."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def viewer(self, session: Session, credentials: Credentials, method: str, path: str) -> Viewer:
        """Return who is asking.

        Raises:
            NotLoggedInError: no token is valid.
            ForbiddenError: the valid one's scopes do not allow this request.
        """
        main = None
        for token in credentials.tokens:
            main = await self._check(session, token, credentials.remote)
            if main is not None:
                break
        readers = []
        if credentials.reader_tokens and method in ("GET", "HEAD"):
            readers = await self._readers(session, credentials, method, path)
        if main is None:
            if not readers:
                raise NotLoggedInError
            main, readers = readers[0], readers[1:]
        elif not scope_allows(main.scopes, method, path):
            raise ForbiddenError
        return _with_readers(main, readers)

    async def _readers(self, session: Session, credentials: Credentials, method: str, path: str) -> list[Viewer]:
        found = []
        for token in credentials.reader_tokens[:MAX_READER_TOKENS]:
            viewer = await self._check(session, token, credentials.remote)
            if viewer is not None and scope_allows(viewer.scopes, method, path):
                found.append(viewer)
        return found

    async def _check(self, session: Session, token: str, remote: str) -> Viewer | None:
        settings = self._settings
        if settings.system_root_token and _equal(token, settings.system_root_token):
            return self._root(token)
        if settings.users.anonymous_user_token and _equal(token, settings.users.anonymous_user_token):
            return self._anonymous(token)
        parts = token.split("/")
        if parts[0] == "v2" and len(parts) in (3, 4):
            return await self._check_v2(session, parts, remote)
        if len(parts) != 1 or not token or not (token.isascii() and token.isprintable()):
            return None
        external = hmac.new(settings.system_root_token.encode(), token.encode(), "sha256").hexdigest()
        row = await session.row(_QUERIES["token"], None, [token, external])
        return None if row is None else _viewer_of(row, token, "")

    async def _check_v2(self, session: Session, parts: list[str], remote: str) -> Viewer | None:
        uuid, secret = parts[1], parts[2]
        if not is_uuid(uuid, TOKEN) or not secret:
            return None
        anonymous = self._settings.users.anonymous_user_token
        if anonymous and uuid == self._anonymous("").token_uuid and _equal(secret, anonymous):
            return self._anonymous(secret)
        row = await session.row(_QUERIES["token"], uuid, [])
        if row is None:
            return None
        asking = remote or self._settings.cluster
        salted = hmac.new(row["api_token"].encode(), asking.encode(), "sha1").hexdigest()
        if not _equal(secret, row["api_token"]) and not _equal(secret, salted):
            return None
        if len(parts) == 4 and not await session.value(
            _QUERIES["container_of_token"], parts[3], uuid, row["api_token"]
        ):
            return None
        return _viewer_of(row, secret, remote if _equal(secret, salted) else "")

    def _root(self, token: str) -> Viewer:
        cluster = self._settings.cluster
        uuid = system_user(cluster)
        return Viewer(uuid, True, True, f"{cluster}-{TOKEN}-{SYSTEM_SUFFIX}", ("all",), token, (uuid,))

    def _anonymous(self, token: str) -> Viewer:
        cluster = self._settings.cluster
        uuid = anonymous_user(cluster)
        return Viewer(uuid, False, True, f"{cluster}-{TOKEN}-{ANONYMOUS_SUFFIX}", ("GET /",), token, (uuid,))


def _viewer_of(row: Any, presented: str, remote: str) -> Viewer:
    scopes = tuple(scope for scope in json.loads(row["scopes"]) if isinstance(scope, str))
    uuid = row["user_uuid"]
    return Viewer(uuid, row["is_admin"], row["is_active"], row["uuid"], scopes, presented, (uuid,), remote)


def _with_readers(main: Viewer, readers: Sequence[Viewer]) -> Viewer:
    if not readers:
        return main
    users = tuple(dict.fromkeys([*main.read_users, *(viewer.user_uuid for viewer in readers)]))
    return replace(main, read_users=users)


def _equal(left: str, right: str) -> bool:
    return hmac.compare_digest(left.encode("utf-8", "surrogateescape"), right.encode("utf-8", "surrogateescape"))
