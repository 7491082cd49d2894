"""What users do with collections: hashes, versions, signatures, files and segments replaced."""

import hashlib

import aiohttp
import pytest

from apiserver.manifests import portable_data_hash
from apiserver.settings import ApiLimits, Collections
from tests.support.api import Client, api_database, api_template, root, running, settings
from tests.support.postgres import postgres_server

__all__ = ["api_database", "api_template", "postgres_server", "root"]
pytestmark = pytest.mark.pg
BLOCK = "acbd18db4cc2f85cedef654fccc4a4d8+3"
MANIFEST = f". {BLOCK} 0:3:foo\n"
PDH = f"{hashlib.md5(MANIFEST.encode(), usedforsecurity=False).hexdigest()}+{len(MANIFEST)}"


async def test_a_collection_gets_its_hash_and_keeps_its_versions(root: Client) -> None:
    made = await root.post("collections", {"collection": {"manifest_text": MANIFEST, "name": "v1"}})
    assert made["portable_data_hash"] == PDH
    assert (made["file_count"], made["file_size_total"], made["version"]) == (1, 3, 1)
    await root.put(f"collections/{made['uuid']}", {"collection": {"preserve_version": True}})
    changed = await root.put(f"collections/{made['uuid']}", {"collection": {"name": "v2"}})
    assert changed["version"] == 2
    current = await root.get("collections", filters=[["current_version_uuid", "=", made["uuid"]]])
    assert [item["name"] for item in current["items"]] == ["v2"]
    versions = await root.get(
        "collections", filters=[["current_version_uuid", "=", made["uuid"]]], include_old_versions=True,
        order=["version"],
    )  # fmt: skip
    assert [(item["version"], item["name"]) for item in versions["items"]] == [(1, "v1"), (2, "v2")]
    old = versions["items"][0]["uuid"]
    assert (await root.call("PUT", f"collections/{old}", {"collection": {"name": "x"}})).status == 422
    assert (await root.get(f"collections/{made['portable_data_hash']}"))["manifest_text"] == MANIFEST


@pytest.mark.parametrize(
    "manifest",
    [". 0:0:foo\n", f". {BLOCK} 0:4:foo\n", f"x {BLOCK} 0:3:foo\n", f". {BLOCK} 0:3:foo", f". {BLOCK} 0:3:a/../b\n"],
)
async def test_a_wrong_manifest_is_refused(root: Client, manifest: str) -> None:
    response = await root.call("POST", "collections", {"collection": {"manifest_text": manifest}})
    assert response.status == 422
    assert "manifest_text" in response.errors


async def test_a_large_manifest_is_checked_signed_and_changed_as_a_small_one(api_database: str) -> None:
    signing = settings(api_database, collections=Collections(blob_signing_key="k" * 32))
    manifest = "".join(f"./d{number} {BLOCK} 0:3:f\n" for number in range(60_000))
    async with running(signing) as base, aiohttp.ClientSession() as http:
        root = Client(base, http)
        made = await root.post("collections", {"collection": {"manifest_text": manifest}})
        path = f"collections/{made['uuid']}"
        assert (made["file_count"], made["portable_data_hash"]) == (60_000, portable_data_hash(manifest))
        assert (await root.get(path))["manifest_text"].count("+A") == 60_000
        changed = await root.put(path, {"collection": {}, "replace_files": {"/d7": "current/d8", "/d9": ""}})
        assert changed["file_count"] == 59_999
        wrong = await root.call("PUT", path, {"collection": {"manifest_text": manifest + "wrong"}})
        assert (wrong.status, "does not end with a newline" in wrong.errors) == (422, True)


async def test_a_wrong_hash_is_refused(root: Client) -> None:
    wrong = {"manifest_text": MANIFEST, "portable_data_hash": "0" * 32 + "+5"}
    assert (await root.call("POST", "collections", {"collection": wrong})).status == 422


async def test_block_signatures_are_made_for_readers_and_needed_by_writers(api_database: str, root: Client) -> None:
    signing = settings(api_database, collections=Collections(blob_signing_key="blobkey"))
    async with running(signing) as base:
        admin = Client(base, root.http)
        alice = await admin.user("alice")
        assert (await alice.call("POST", "collections", {"collection": {"manifest_text": MANIFEST}})).status == 403
        made = await admin.post("collections", {"collection": {"manifest_text": MANIFEST}})
        assert "+A" in made["manifest_text"]
        assert made["portable_data_hash"] == PDH
        shared = {"link_class": "permission", "name": "can_read", "tail_uuid": alice.user_uuid,
                  "head_uuid": made["uuid"]}  # fmt: skip
        await admin.post("links", {"link": shared})
        signed = (await alice.get(f"collections/{made['uuid']}"))["manifest_text"]
        copy = await alice.post("collections", {"collection": {"manifest_text": signed}})
        assert copy["portable_data_hash"] == made["portable_data_hash"]
        forged = signed.replace("+A", "+Af", 1)
        assert (await alice.call("POST", "collections", {"collection": {"manifest_text": forged}})).status in (403, 422)


async def test_a_page_of_manifests_ends_where_the_allowance_ends(api_database: str, root: Client) -> None:
    for number in range(5):
        await root.post("collections", {"collection": {"manifest_text": MANIFEST, "name": f"m{number}"}})
    small = settings(api_database, api=ApiLimits(max_index_database_read=2 * len(MANIFEST)))
    filters = [["name", "like", "m%"]]
    async with running(small) as base:
        client = Client(base, root.http)
        wanted = {"filters": filters, "select": ["name", "manifest_text"], "order": ["name"]}
        page = await client.get("collections", **wanted)
        assert (len(page["items"]), page["limit"], page["items_available"]) == (2, 2, 5)
        rest = await client.get(
            "collections", filters=filters, select=["name", "manifest_text"], order=["name"], offset=4
        )
        assert [item["name"] for item in rest["items"]] == ["m4"]
        assert len((await client.get("collections", filters=filters, select=["uuid"]))["items"]) == 5


async def test_files_of_a_collection_are_replaced_by_those_of_others(api_database: str, root: Client) -> None:
    alice, other = await root.user("alice"), BLOCK.replace("acbd", "37b5").replace("+3", "+5")
    made = await alice.post("collections", {"collection": {"manifest_text": MANIFEST + f"./d {BLOCK} 0:1:a 1:2:b\n"}})
    source = await alice.post("collections", {"collection": {"manifest_text": f"./x\\040y {other} 0:5:z\n"}})
    secret = await root.post("collections", {"collection": {"manifest_text": f". {other} 0:5:s\n"}})
    path = f"collections/{made['uuid']}"

    async def replace(wanted: object, **attributes: str) -> tuple[int, str]:
        answer = await alice.call("PUT", path, {"collection": attributes, "replace_files": wanted})
        return answer.status, answer.body.get("manifest_text", answer.body.get("errors"))

    pdh = source["portable_data_hash"]
    status, text = await replace({"/foo": "", "/new/z": f"{pdh}/x y/z", "/d/b": "current/foo"})
    assert (status, text) == (200, f"./d {BLOCK} 0:1:a 0:3:b\n./new {other} 0:5:z\n")
    assert (await alice.get(path))["version"] == 1
    status, text = await replace({"/": f"{pdh}/"})
    assert (status, text) == (200, f"./x\\040y {other} 0:5:z\n")
    status, text = await replace({"/w": "manifest_text/foo"}, manifest_text=MANIFEST)
    assert (status, text) == (200, f". {BLOCK} 0:3:w\n./x\\040y {other} 0:5:z\n")
    for wanted, status in (
        ({"/a": f"{secret['portable_data_hash']}/s"}, 404), ({"/a": "current/nosuch"}, 400), ({"a": "current/w"}, 400),
        ({"/a/../b": "current/w"}, 400), ({"/a": "current/w", "/a/b": "current/w"}, 400), ({"/w/x": "current/w"}, 400),
        ({"/": "current/w"}, 400), ({"/a": 5}, 400), ([], 400), ({"/a": "nosuch/w"}, 400),
    ):  # fmt: skip
        assert (await replace(wanted))[0] == status, wanted
    assert (await replace({"/a": "current/w"}, manifest_text=MANIFEST))[0] == 400
    assert await replace({"/x y": "", "/x y/v": "current/w"}) == (200, f". {BLOCK} 0:3:w\n./x\\040y {BLOCK} 0:3:v\n")
    assert await replace({"/": "", "/d/v": "current/x y/v"}) == (200, f"./d {BLOCK} 0:3:v\n")
    assert await replace({}, manifest_text=MANIFEST) == (200, MANIFEST)
    fresh = await alice.post("collections", {"collection": {"name": "n"}, "replace_files": {"/f": f"{pdh}/x y/z"}})
    assert (fresh["manifest_text"], fresh["file_count"]) == (f". {other} 0:5:f\n", 1)


async def test_segments_are_read_from_another_block_unless_one_of_them_is_gone(api_database: str) -> None:
    signing = settings(api_database, collections=Collections(blob_signing_key="k" * 32))
    small, large = (f"{digit * 32}+{size}" for digit, size in (("a", 3), ("b", 9)))
    async with running(signing) as base, aiohttp.ClientSession() as http:
        root = Client(base, http)
        alice = await root.user("alice")
        signed = (await root.post("collections", {"collection": {"manifest_text": f". {large} 0:9:x\n"}}))["uuid"]
        await root.post("links", {"link": {"link_class": "permission", "name": "can_read", "head_uuid": signed,
                                           "tail_uuid": alice.user_uuid}})  # fmt: skip
        block = (await alice.get(f"collections/{signed}"))["manifest_text"].split(" ")[1]
        mine = await root.post(
            "collections", {"collection": {"owner_uuid": alice.user_uuid, "manifest_text": f". {small} 0:3:f 0:2:g\n"}}
        )
        path = f"collections/{mine['uuid']}"

        async def replace(wanted: object) -> tuple[int, str]:
            answer = await alice.call("PUT", path, {"collection": {}, "replace_segments": wanted})
            stored = await root.get(path, select=["unsigned_manifest_text"])
            return answer.status, stored["unsigned_manifest_text"]

        before = f". {small} 0:3:f 0:2:g\n"
        gone = {f"{small} 0 3": f"{block} 4 3", f"{small} 1 1": f"{block} 0 1"}
        assert await replace(gone) == (200, before)
        assert await replace({f"{small} 0 3": f"{large} 4 3"}) == (403, before)
        malformed: tuple[object, ...] = (
            [], {f"{small} 0 3": f"{block} 4 2"}, {f"{small} 0 3": f"{block} 7 3"}, {f"{small} 0 3": 5},
            {f"{small} 0 0": f"{block} 0 0"}, {"x 0 3": f"{block} 4 3"},
        )  # fmt: skip
        for wrong in malformed:
            assert await replace(wrong) == (400, before), wrong
        both = {f"{small} 0 3": f"{block} 4 3", f"{small} 0 2": f"{block} 2 2"}
        assert await replace(both) == (200, f". {large} 4:3:f 2:2:g\n")
        changed = await alice.get(path)
        assert changed["portable_data_hash"] != mine["portable_data_hash"]
        assert (changed["file_count"], changed["file_size_total"]) == (2, 5)
