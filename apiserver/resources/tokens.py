"""API tokens: each user's own, in the table `api_client_authorizations`."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from apiserver.controller import Controller, Draft
from apiserver.errors import ForbiddenError, InvalidError, NotLoggedInError
from apiserver.names import new_secret, system_user
from apiserver.operation import Call, Operation, Parameter, Reply
from apiserver.schema import API_CLIENT_AUTHORIZATIONS
from apiserver.sqltext import Binder

_FILTERABLE = ("uuid", "api_token", "scopes")


class Tokens(Controller):
    """`api_client_authorizations`. A user sees and changes only its own; the secret is kept in clear."""

    resource = API_CLIENT_AUTHORIZATIONS
    default_order = (("created_at", True), ("uuid", True))
    extra_types = {"user_uuid": "text"}  # noqa: RUF012

    def operations(self) -> Iterable[Operation]:
        """Return the standard operations, the current token, and tokens of the system."""
        yield from super().operations()
        table = self.resource.table
        yield Operation(table, "current", "GET", f"{table}/current", self.current, (), "ApiClientAuthorization")
        scopes = (Parameter("scopes", "array", description="What the token may do"),)
        yield Operation(table, "create_system_auth", "POST", f"{table}/create_system_auth", self.create_system_auth,
                        scopes, "ApiClientAuthorization", write=True)  # fmt: skip

    def readable(self, call: Call, binder: Binder) -> list[str]:
        """Only the viewer's own tokens, for admins too; a restricted token sees only itself."""
        conditions = [f"t.user_uuid = {binder.bind(call.viewer.user_uuid, 'text')}"]
        if not call.viewer.unrestricted:
            conditions.append(f"t.uuid = {binder.bind(call.viewer.token_uuid, 'text')}")
        return conditions

    def untrashed(self, call: Call, binder: Binder) -> list[str]:
        """Tokens are never in the trash."""
        del call, binder
        return []

    def computed(self, call: Call, binder: Binder) -> Mapping[str, Callable[[], str]]:
        """Show whose token it is."""
        del call, binder
        return {"owner_uuid": lambda: "t.user_uuid"}

    def level(self, viewer: Any, binder: Binder) -> str:
        """Who may see a token may change it."""
        del viewer, binder
        return "3"

    def frozen(self) -> str:
        """A token is in no project."""
        return "false"

    async def list(self, call: Call) -> Reply:
        """List own tokens; only uuid, api_token and scopes can be filtered on, by equality."""
        filters = call.parameters.get("filters", [])
        for item in filters if isinstance(filters, list) else ():  # what is no list is refused below
            if not isinstance(item, list) or len(item) != 3 or item[0] not in _FILTERABLE or item[1] != "=":
                raise InvalidError("tokens can be filtered by uuid, api_token and scopes with = only")
        return await super().list(call)

    async def current(self, call: Call) -> Reply:
        """Answer the token of this request; its secret is left out when a remote cluster asks."""
        row = await call.session.row("SELECT 1 FROM api_client_authorizations WHERE uuid = $1", call.viewer.token_uuid)
        if row is None:
            return Reply(self._unstored(call))
        item = await self.shown_to_writer(call, call.viewer.token_uuid)
        if call.viewer.remote:
            item["api_token"] = None
        return Reply(item)

    def _unstored(self, call: Call) -> dict[str, Any]:
        """Return the token of the configuration that is in no table."""
        viewer = call.viewer
        item = dict.fromkeys(self.resource.visible)
        item |= {"kind": self.resource.kind, "etag": "", "uuid": viewer.token_uuid, "owner_uuid": viewer.user_uuid}
        return item | {"api_token": viewer.presented, "scopes": list(viewer.scopes)}

    def attributes(self, call: Call) -> dict[str, Any]:
        """Take `owner_uuid` as the user that the token is for."""
        found = call.parameters.get(self.resource.singular, call.parameters)
        owner = found.get("owner_uuid") if isinstance(found, dict) else None
        if isinstance(found, dict):
            found.pop("owner_uuid", None)
        values = super().attributes(call)
        if owner is not None:
            call.parameters["for_user"] = owner
        return values

    def assign(self, call: Call, draft: Draft, attributes: Mapping[str, Any]) -> None:
        """Set the secret and the user of a new token; neither changes later."""
        changes = dict(attributes)
        if not call.viewer.is_admin or not draft.is_new:
            changes.pop("api_token", None)
        super().assign(call, draft, changes)
        user = call.parameters.get("for_user", call.viewer.user_uuid)
        if user != call.viewer.user_uuid and not call.viewer.is_admin:
            raise ForbiddenError("only an admin makes tokens for others")
        if draft.is_new:
            draft.new.setdefault("api_token", new_secret())
            draft.new["user_uuid"] = user
            draft.new["created_by_ip_address"] = call.facts.client or None
            draft.new.setdefault("scopes", '["all"]')

    async def prepare(self, call: Call, draft: Draft) -> None:
        """A restricted token makes or widens none; tokens live at most MaxTokenLifetime."""
        if not call.viewer.unrestricted:
            raise ForbiddenError("only an unrestricted token may create or change tokens")
        if draft.is_new and not call.settings.issue_trusted_tokens and not call.viewer.is_admin:
            raise ForbiddenError("tokens are issued to admins only (Login.IssueTrustedTokens)")
        if draft.new.get("scopes") in (None, ""):
            raise InvalidError("scopes must be an array of strings")
        if draft.is_new and not await call.session.value(
            "SELECT 1 FROM users WHERE uuid = $1 AND redirect_to_user_uuid IS NULL", draft.new["user_uuid"]
        ):
            raise InvalidError("owner_uuid does not refer to a user")
        lifetime = call.settings.api.max_token_lifetime_s
        if lifetime and not call.viewer.is_admin:
            draft.new["expires_at"] = await call.session.value(
                "SELECT least($1::timestamptz, clock_timestamp() + make_interval(secs => $2::double precision))",
                draft.new.get("expires_at"), lifetime,
            )  # fmt: skip

    async def create_system_auth(self, call: Call) -> Reply:
        """Make a token that acts as the system user."""
        if not call.viewer.is_admin:
            raise ForbiddenError("system tokens are made by admins only")
        scopes = call.parameters.get("scopes") or ["all"]
        user = system_user(call.context.cluster)
        call.parameters = {self.resource.singular: {"scopes": scopes, "owner_uuid": user}}
        return await self.create(call)

    def require_active(self, call: Call) -> None:
        """The anonymous token, which is in no table, makes none."""
        if not call.viewer.is_active and not call.viewer.is_admin:
            raise ForbiddenError("your account is not active")
        if not call.viewer.user_uuid:
            raise NotLoggedInError
