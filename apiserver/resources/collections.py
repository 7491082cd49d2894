"""Collections: manifests and their hashes, signatures, versions, trash."""

import asyncio
import hmac
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from apiserver import audit, repacking, replacing
from apiserver.controller import Draft
from apiserver.errors import BadRequestError, ForbiddenError, InvalidError
from apiserver.listing import parse_select
from apiserver.manifests import Contents, Signer, parse, portable_data_hash, stripped
from apiserver.names import PDH, new_uuid
from apiserver.operation import INCLUDE_OLD, INCLUDE_TRASH, UNIQUE_NAME, UUID, Call, Operation, Parameter, Reply
from apiserver.permissions import not_found, owner_not_trashed
from apiserver.resources.groups import valid_name
from apiserver.resources.trashable import Trashable
from apiserver.schema import COLLECTIONS
from apiserver.sqltext import Binder, all_of, quote

T = TypeVar("T")
_VERSIONED = ("manifest_text", "name", "description", "properties")
_NOT_TRASHED = "(t.trash_at IS NULL OR t.trash_at > statement_timestamp())"
_LARGE = 1 << 20  # what works on a manifest of so many characters takes 0.1 s and would keep others waiting

REPLACE_FILES = Parameter(
    "replace_files",
    "object",
    description="Sources by target paths: current/PATH, manifest_text/PATH, HASH/PATH, or empty",
)
REPLACE_SEGMENTS = Parameter(
    "replace_segments",
    "object",
    description="Parts of blocks by the parts that they stand for, each LOCATOR OFFSET LENGTH",
)


class Collections(Trashable):
    """`collections`."""

    resource = COLLECTIONS
    get_parameters = (INCLUDE_TRASH,)
    list_parameters = (INCLUDE_TRASH, INCLUDE_OLD)
    create_parameters = (REPLACE_FILES, REPLACE_SEGMENTS)
    update_parameters = (REPLACE_FILES, REPLACE_SEGMENTS, UNIQUE_NAME)

    def operations(self) -> Iterable[Operation]:
        """Return the standard operations, and what once was a graph."""
        yield from super().operations()
        for name, run in (("provenance", self.provenance), ("used_by", self.used_by)):
            yield Operation("collections", name, "GET", f"collections/{{uuid}}/{name}", run, (UUID,), "Collection")

    # -- reading

    def untrashed(self, call: Call, binder: Binder) -> list[str]:
        """Neither the collection nor its owner is in the trash."""
        del binder
        return [] if call.flag("include_trash") else [owner_not_trashed("t.owner_uuid"), _NOT_TRASHED]

    def also(self, call: Call, binder: Binder) -> list[str]:
        """A list shows past versions only when asked to."""
        del binder
        return [] if call.flag("include_old_versions") else ["t.current_version_uuid = t.uuid"]

    def computed(self, call: Call, binder: Binder) -> Mapping[str, Callable[[], str]]:
        """A manifest without signatures is shown to who selects it."""
        del binder
        asked = "unsigned_manifest_text" in (call.parameters.get("select") or ())
        return {"unsigned_manifest_text": lambda: "t.manifest_text"} if asked else {}

    async def get(self, call: Call) -> Reply:
        """Answer one collection, by uuid or by portable data hash."""
        if PDH.fullmatch(call.uuid.partition("+A")[0]) or "+" in call.uuid:
            return Reply(await self._by_hash(call))
        call.parameters["include_old_versions"] = True
        return await super().get(call)

    async def _by_hash(self, call: Call) -> dict[str, Any]:
        """Return the contents of the readable collection with that hash that is trashed last."""
        binder = Binder()
        conditions = [
            f"t.portable_data_hash = {binder.bind('+'.join(call.uuid.split('+')[:2]), 'text')}",
            *self.readable(call, binder),
            *self.untrashed(call, binder),
        ]
        row = await call.session.row(
            "SELECT t.portable_data_hash, t.manifest_text, t.trash_at FROM collections AS t"
            f" WHERE {all_of(conditions)} ORDER BY t.trash_at DESC NULLS FIRST LIMIT 1",
            *binder.values,
        )
        if row is None:
            raise not_found(call.uuid)
        item = self.render(row)
        item |= {"uuid": row["portable_data_hash"], "unsigned_manifest_text": row["manifest_text"]}
        await self._sign(call, item, row["trash_at"])
        select = parse_select(call.parameters.get("select"), self.resource)
        if select is None:
            select = tuple(name for name in item if name != "unsigned_manifest_text")
        return {name: value for name, value in item.items() if name in (*select, "kind", "etag")}

    async def finish(self, call: Call, item: dict[str, Any]) -> None:
        """Sign the manifest; show a missing name as the empty text."""
        if "name" in item and item["name"] is None:
            item["name"] = ""
        await self._sign(call, item, None)

    async def _sign(self, call: Call, item: dict[str, Any], trash_at: Any) -> None:
        rules = call.settings.collections
        if not rules.blob_signing or not rules.blob_signing_key or not item.get("manifest_text"):
            return
        expiry = await call.session.value(
            "SELECT extract(epoch FROM least(clock_timestamp() + make_interval(secs => $1::double precision),"
            " $2::timestamptz, (SELECT trash_at FROM collections WHERE uuid = $3)))::bigint",
            rules.blob_signing_ttl_s, trash_at, item.get("uuid"),
        )  # fmt: skip
        item["manifest_text"] = await _aside(self._signer(call).sign, item["manifest_text"], expiry)

    def _signer(self, call: Call) -> Signer:
        rules = call.settings.collections
        return Signer(rules.blob_signing_key, call.viewer.presented, int(rules.blob_signing_ttl_s))

    # -- writing

    def assign(self, call: Call, draft: Draft, attributes: Mapping[str, Any]) -> None:
        """Keep the empty name as null."""
        super().assign(call, draft, attributes)
        if draft.new.get("name") == "":
            draft.new["name"] = None

    def renamed(self, draft: Draft) -> None:
        """A collection's current version is itself."""
        draft.new["current_version_uuid"] = draft.new["uuid"]

    async def validate(self, call: Call, draft: Draft) -> None:
        """Check name, manifest, hash and version rules; work out what follows from them."""
        new = draft.new
        if not draft.is_new and new["current_version_uuid"] != new["uuid"]:
            raise InvalidError("past versions of a collection cannot be changed")
        name = new.get("name")
        if name is not None and not valid_name(name, call.settings.collections.forward_slash_name_substitution):
            raise InvalidError(f"name {name[:80]!r} cannot be used: it must be a valid file name")
        if draft.is_new:
            new["current_version_uuid"] = new["uuid"]
            new.setdefault("manifest_text", "")
            new.setdefault("storage_classes_desired", _default_classes(call))
            new.setdefault("replication_desired", None)
        if new.get("storage_classes_desired") == "[]":
            raise InvalidError("storage_classes_desired must not be empty")
        anew = self._asks(call, "replace_files") or self._asks(call, "replace_segments")
        if draft.is_new or anew or draft.changed("manifest_text", "portable_data_hash"):
            await self._check_manifest(call, draft)
        for number in ("replication_desired", "replication_confirmed"):
            if new.get(number) is not None and new[number] < 0:
                raise InvalidError(f"{number} must not be negative")
        if draft.changed("trash_at", "delete_at"):
            await self.reschedule(call, draft)

    async def _check_manifest(self, call: Call, draft: Draft) -> None:
        new = draft.new
        if draft.changed("manifest_text"):
            await self._check_signatures(call, new.get("manifest_text") or "")
        if self._asks(call, "replace_files"):
            await self._replace_files(call, draft)
        if self._asks(call, "replace_segments"):
            await self._replace_segments(call, draft)
        manifest = new.get("manifest_text") or ""
        contents = await _parsed(manifest)
        new["manifest_text"] = stripped(manifest)
        expected = await _aside(portable_data_hash, manifest)
        given = new.get("portable_data_hash")
        old_given = (draft.old or {}).get("portable_data_hash")
        if given and given != old_given and not hmac.compare_digest(given.split("+")[0], expected.split("+")[0]):
            raise InvalidError(f"portable_data_hash {given[:60]} does not match computed hash {expected}")
        new["portable_data_hash"] = expected
        new["file_count"], new["file_size_total"] = contents.file_count, contents.file_size_total

    def _asks(self, call: Call, option: str) -> bool:
        return bool(call.parameters.get(option, {}) != {})

    async def _replace_files(self, call: Call, draft: Draft) -> None:
        """Put the manifest together of the sources that the request names; all of them are readable by the viewer.

        Raises:
            BadRequestError: a manifest came along and is not used, or targets or sources are wrong.
            NotFoundError: a source collection is not there for the viewer.
        """
        wanted = replacing.parse(call.parameters["replace_files"])
        names = {source.place for source in wanted.values() if source is not None}
        current = (draft.old or {}).get("manifest_text") or ""
        if draft.changed("manifest_text") and draft.new.get("manifest_text") and "manifest_text" not in names:
            raise BadRequestError("manifest_text is given, and no source of replace_files is in it")
        sources = {name: await self._source(call, draft, name, current) for name in sorted(names)}

        def anew(before: str) -> str:
            places = {name: replacing.tree_of(text) for name, text in sources.items()}
            return replacing.manifest_of(replacing.replaced(replacing.tree_of(before), wanted, places))

        size = sum(map(len, sources.values()))
        draft.new["manifest_text"] = await _aside(anew, current, size=size)
        draft.new["portable_data_hash"] = None

    async def _replace_segments(self, call: Call, draft: Draft) -> None:
        """Let files be read from other blocks, which the viewer must be allowed to read.

        Raises:
            BadRequestError: a segment is malformed.
            ForbiddenError: a new block has no good signature.
        """
        moves = repacking.parse(call.parameters["replace_segments"])
        await self._check_signatures(call, f". {' '.join(repacking.locators(moves))} \n")
        before = draft.new.get("manifest_text") or ""
        await _parsed(before)
        tree = await _aside(replacing.tree_of, before)
        after = repacking.repacked(tree, moves)
        if after != tree:
            draft.new |= {"manifest_text": replacing.manifest_of(after), "portable_data_hash": None}

    async def _source(self, call: Call, draft: Draft, name: str, current: str) -> str:
        if name == "current":
            return current
        if name == "manifest_text":
            given = stripped(draft.new.get("manifest_text") or "")
            await _parsed(given)
            return given
        if not PDH.fullmatch(name):
            raise BadRequestError(f"replace_files: {name[:60]!r} is no portable data hash, current or manifest_text")
        binder = Binder()
        conditions = [
            f"t.portable_data_hash = {binder.bind(name, 'text')}", *self.readable(call, binder),
            owner_not_trashed("t.owner_uuid"), _NOT_TRASHED,
        ]  # fmt: skip
        found = await call.session.value(
            f"SELECT t.manifest_text FROM collections AS t WHERE {all_of(conditions)} LIMIT 1", *binder.values
        )
        if found is None:
            raise not_found(name)
        return str(found)

    async def _check_signatures(self, call: Call, manifest: str) -> None:
        rules = call.settings.collections
        if not manifest or call.viewer.is_admin or not rules.blob_signing or not rules.blob_signing_key:
            return
        now = await call.session.value("SELECT extract(epoch FROM clock_timestamp())::bigint")
        if wrong := await _aside(self._signer(call).unsigned, manifest, now):
            raise ForbiddenError(f"Permission denied: invalid signature on block {wrong[0]}")

    async def write(self, call: Call, draft: Draft) -> None:
        """Keep the old version as a row of its own when it is worth keeping."""
        rules = call.settings.collections
        if draft.old is not None and rules.collection_versioning and draft.changed(*_VERSIONED):
            idle = await call.session.value(
                "SELECT clock_timestamp() - $1::timestamptz > make_interval(secs => $2::double precision)",
                draft.old["modified_at"], rules.preserve_version_if_idle_s,
            )  # fmt: skip
            if draft.old["preserve_version"] or (idle and rules.preserve_version_if_idle_s >= 0):
                await self._keep(call, draft.old)
                draft.new["version"] = draft.old["version"] + 1
        await super().write(call, draft)

    async def _keep(self, call: Call, old: Mapping[str, Any]) -> None:
        # The row that is changed next has the same version until then: the unique index is met by a detour.
        names = [name for name in old if name not in ("id", "uuid", "version")]
        columns = ", ".join(map(quote, names))
        uuid = new_uuid(call.context.cluster, self.resource.infix)
        await call.session.execute("UPDATE collections SET version = version + 1 WHERE uuid = $1", old["uuid"])
        await call.session.execute(
            f"INSERT INTO collections (uuid, version, {columns})"
            f" SELECT $1, version - 1, {columns} FROM collections WHERE uuid = $2",
            uuid, old["uuid"],
        )  # fmt: skip

    async def stored(self, call: Call, draft: Draft) -> None:
        """Past versions follow their current one: owner, trash and deletion."""
        if draft.old is not None and draft.changed("owner_uuid", "trash_at", "delete_at", "is_trashed", "uuid"):
            await call.session.execute(
                "UPDATE collections AS old SET owner_uuid = new.owner_uuid, trash_at = new.trash_at,"
                " delete_at = new.delete_at, is_trashed = new.is_trashed FROM collections AS new"
                " WHERE new.uuid = $1 AND old.current_version_uuid = $1 AND old.uuid <> $1",
                draft.new["uuid"],
            )

    async def provenance(self, call: Call) -> Reply:
        """Answer the collection alone: what made it is in container requests, not in a graph of its own."""
        item = await self.shown(call, call.uuid)
        item.pop("manifest_text", None)
        return Reply({call.uuid: item})

    async def used_by(self, call: Call) -> Reply:
        """Answer the collection alone."""
        return await self.provenance(call)

    async def remove(self, call: Call, draft: Draft) -> None:
        """Delete the row and its past versions."""
        await call.session.execute("DELETE FROM collections WHERE current_version_uuid = $1", draft.new["uuid"])
        await audit.record(call, self.resource, draft.old, None)


async def _aside(work: Callable[..., T], manifest: str, *more: object, size: int = 0) -> T:
    """Return what work on a manifest gives; on large ones (with `size` characters beside it) in a thread."""
    if len(manifest) + size < _LARGE:
        return work(manifest, *more)
    return await asyncio.to_thread(work, manifest, *more)


async def _parsed(manifest: str) -> Contents:
    """Return what a manifest holds.

    Raises:
        InvalidError: a line breaks the grammar.
    """
    try:
        return await _aside(parse, manifest)
    except ValueError as exc:
        raise InvalidError(f"manifest_text: {exc}") from exc


def _default_classes(call: Call) -> str:
    names = [name for name, options in call.settings.storage_classes.items() if (options or {}).get("Default")]
    return '["' + '","'.join(names or ["default"]) + '"]'
