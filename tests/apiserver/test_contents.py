"""What is in a project, and what is shared."""

import pytest

from tests.support.api import Client, api_database, api_template, root
from tests.support.postgres import postgres_server

__all__ = ["api_database", "api_template", "postgres_server", "root"]
pytestmark = pytest.mark.pg


async def _tree(client: Client) -> dict[str, str]:
    """A project with a subproject; a collection in each, a workflow in the upper one."""
    top = (await client.post("groups", {"group": {"group_class": "project", "name": "top"}}))["uuid"]
    sub = (await client.post("groups", {"group": {"group_class": "project", "name": "sub", "owner_uuid": top}}))["uuid"]
    made = {"top": top, "sub": sub}
    for name, owner in (("upper", top), ("lower", sub)):
        made[name] = (await client.post("collections", {"collection": {"name": name, "owner_uuid": owner}}))["uuid"]
    made["flow"] = (await client.post("workflows", {"workflow": {"name": "flow", "owner_uuid": top}}))["uuid"]
    return made


def _uuids(body: dict[str, object]) -> list[str]:
    items = body["items"]
    assert isinstance(items, list)
    return [item["uuid"] for item in items]


async def test_contents_come_by_class_and_page_over_classes(root: Client) -> None:
    alice = await root.user("alice")
    made = await _tree(alice)
    whole = await alice.get("groups/contents", uuid=made["top"])
    assert _uuids(whole) == [made["sub"], made["flow"], made["upper"]]
    assert whole["items_available"] == 3
    assert "manifest_text" not in whole["items"][2]
    pages = [await alice.get("groups/contents", uuid=made["top"], limit=1, offset=n) for n in range(4)]
    assert [_uuids(page) for page in pages] == [[made["sub"]], [made["flow"]], [made["upper"]], []]
    deep = await alice.get("groups/contents", uuid=made["top"], recursive=True)
    assert set(_uuids(deep)) == {made["sub"], made["flow"], made["upper"], made["lower"]}


async def test_contents_are_filtered_by_class_and_by_attribute(root: Client) -> None:
    alice = await root.user("alice")
    made = await _tree(alice)
    kinds = [["uuid", "is_a", "arvados#collection"]]
    assert _uuids(await alice.get("groups/contents", uuid=made["top"], filters=kinds)) == [made["upper"]]
    named = [["collections.name", "=", "nothing"], ["uuid", "is_a", ["arvados#collection", "arvados#workflow"]]]
    assert _uuids(await alice.get("groups/contents", uuid=made["top"], filters=named)) == [made["flow"]]
    hashes = [["portable_data_hash", "!=", "x"]]
    assert _uuids(await alice.get("groups/contents", uuid=made["top"], filters=hashes)) == [made["upper"]]
    wrong = await alice.call("GET", "groups/contents", uuid=made["top"], filters=[["nosuch", "=", 1]])
    assert wrong.status == 422


async def test_a_filter_group_holds_what_its_filters_find(root: Client) -> None:
    alice = await root.user("alice")
    made = await _tree(alice)
    properties = {"filters": [["name", "=", "lower"], ["uuid", "is_a", "arvados#collection"]]}
    group = {"group_class": "filter", "name": "f", "properties": properties}
    uuid = (await alice.post("groups", {"group": group}))["uuid"]
    assert _uuids(await alice.get("groups/contents", uuid=uuid)) == [made["lower"]]
    group["properties"] = {"filters": [["name", "="]]}
    assert (await alice.call("POST", "groups", {"group": {**group, "name": "g"}})).status == 422


async def test_shared_shows_the_top_of_what_others_gave(root: Client) -> None:
    alice, bob = await root.user("alice"), await root.user("bob")
    made = await _tree(alice)
    assert _uuids(await bob.get("groups/shared")) == []
    assert (await bob.call("GET", "groups/contents", uuid=made["top"])).status == 404
    grant = {"link_class": "permission", "name": "can_read", "tail_uuid": bob.user_uuid, "head_uuid": made["top"]}
    await alice.post("links", {"link": grant})
    shared = await bob.get("groups/shared", include="owner_uuid")
    assert _uuids(shared) == [made["top"]]
    assert [item["uuid"] for item in shared["included"]] == [alice.user_uuid]
    assert set(_uuids(await bob.get("groups/contents", exclude_home_project=True))) == {
        made[name] for name in ("top", "sub", "upper", "lower", "flow")
    }
