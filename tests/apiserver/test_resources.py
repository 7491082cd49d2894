"""What users do with users, tokens, groups, links, logs and the small resources."""

import asyncio
import json

import asyncpg
import pytest

from apiserver.resources.accounts import MOVED_AT_ONCE
from apiserver.resources.simple import MAX_YAML
from tests.apiserver.models import expected_permissions
from tests.support.api import CLUSTER, Client, api_database, api_template, root
from tests.support.postgres import postgres_server

__all__ = ["api_database", "api_template", "postgres_server", "root"]
pytestmark = pytest.mark.pg
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl test@example"


async def project(client: Client, name: str = "p", **more: object) -> dict[str, object]:
    made: dict[str, object] = await client.post("groups", {"group": {"group_class": "project", "name": name, **more}})
    return made


async def test_a_users_object_belongs_to_it_and_is_hidden_from_others(root: Client) -> None:
    alice, bob = await root.user("alice"), await root.user("bob")
    made = await alice.post("collections", {"collection": {"name": "c", "properties": {"a": [1, {"b": None}]}}})
    assert made["owner_uuid"] == alice.user_uuid
    assert made["properties"] == {"a": [1, {"b": None}]}
    assert (await bob.call("GET", f"collections/{made['uuid']}")).status == 404
    assert (await bob.get("collections"))["items"] == []
    assert [item["uuid"] for item in (await alice.get("collections"))["items"]] == [made["uuid"]]
    assert (await bob.call("PUT", f"collections/{made['uuid']}", {"collection": {"name": "x"}})).status == 404


async def test_levels_of_permission_decide_what_another_user_may_do(root: Client) -> None:
    alice, bob = await root.user("alice"), await root.user("bob")
    shared = await project(alice)
    made = await alice.post("collections", {"collection": {"owner_uuid": shared["uuid"], "name": "c"}})
    path = f"collections/{made['uuid']}"
    link = await alice.post(
        "links",
        {"link": {"link_class": "permission", "name": "can_read", "tail_uuid": bob.user_uuid,
                  "head_uuid": shared["uuid"]}},
    )  # fmt: skip
    assert (await bob.get(path))["name"] == "c"
    assert (await bob.call("PUT", path, {"collection": {"name": "d"}})).status == 403
    assert (await bob.call("DELETE", f"links/{link['uuid']}")).status == 403
    await alice.put(f"links/{link['uuid']}", {"link": {"name": "can_write"}})
    assert (await bob.put(path, {"collection": {"name": "d"}}))["name"] == "d"
    grant = {"link_class": "permission", "name": "can_read", "tail_uuid": bob.user_uuid, "head_uuid": made["uuid"]}
    assert (await bob.call("POST", "links", {"link": grant})).status == 403
    await alice.delete(f"links/{link['uuid']}")
    assert (await bob.call("GET", path)).status == 404


async def test_an_equal_permission_link_is_answered_not_doubled(root: Client) -> None:
    alice, bob = await root.user("alice"), await root.user("bob")
    shared = await project(alice)
    link = {"link_class": "permission", "tail_uuid": bob.user_uuid, "head_uuid": shared["uuid"]}
    first = await alice.post("links", {"link": {**link, "name": "can_manage"}})
    second = await alice.post("links", {"link": {**link, "name": "can_read"}})
    assert (second["uuid"], second["name"]) == (first["uuid"], "can_manage")
    found = await alice.get(f"permissions/{shared['uuid']}")
    assert [item["uuid"] for item in found["items"]] == [first["uuid"]]


async def test_members_of_a_role_reach_what_the_role_reaches(root: Client) -> None:
    alice, bob = await root.user("alice"), await root.user("bob")
    role = await alice.post("groups", {"group": {"group_class": "role", "name": "lab"}})
    assert role["owner_uuid"] == f"{CLUSTER}-tpzed-000000000000000"
    shared = await project(alice)
    for tail, name, head in ((role["uuid"], "can_write", shared["uuid"]), (bob.user_uuid, "can_read", role["uuid"])):
        await alice.post(
            "links",
            {"link": {"link_class": "permission", "name": name, "tail_uuid": tail, "head_uuid": head}},
        )
    seen = await bob.get(f"groups/{shared['uuid']}")
    assert (seen["can_write"], seen["can_manage"]) == (False, False)


async def test_a_name_is_unique_in_its_project_unless_another_is_asked_for(root: Client) -> None:
    alice = await root.user("alice")
    first = await project(alice, "same")
    refused = await alice.call("POST", "groups", {"group": {"group_class": "project", "name": "same"}})
    assert refused.status == 422
    assert "duplicate key" in refused.errors
    second = await alice.post(
        "groups", {"group": {"group_class": "project", "name": "same"}, "ensure_unique_name": True}
    )
    assert second["name"].startswith("same (")
    assert second["uuid"] != first["uuid"]


async def test_a_trashed_project_hides_all_below_it_until_it_is_untrashed(root: Client) -> None:
    alice = await root.user("alice")
    top = await project(alice)
    below = await project(alice, "below", owner_uuid=top["uuid"])
    made = await alice.post("collections", {"collection": {"owner_uuid": below["uuid"], "name": "c"}})
    await alice.delete(f"groups/{top['uuid']}")
    for path in (f"groups/{top['uuid']}", f"groups/{below['uuid']}", f"collections/{made['uuid']}"):
        assert (await alice.call("GET", path)).status == 404
        assert (await alice.call("GET", path, include_trash=True)).status == 200
    back = await alice.post(f"groups/{top['uuid']}/untrash")
    assert back["trash_at"] is None
    assert (await alice.get(f"collections/{made['uuid']}"))["name"] == "c"
    assert (await alice.call("POST", f"groups/{top['uuid']}/untrash")).status == 422


async def test_a_project_cannot_be_moved_into_itself(root: Client) -> None:
    top = await project(root)
    below = await project(root, "below", owner_uuid=top["uuid"])
    moved = await root.call("PUT", f"groups/{top['uuid']}", {"group": {"owner_uuid": below["uuid"]}})
    assert moved.status == 422
    assert "loop" in moved.errors


async def test_nothing_changes_below_a_frozen_project(root: Client) -> None:
    alice = await root.user("alice")
    top = await project(alice)
    below = await project(alice, "below", owner_uuid=top["uuid"])
    await alice.put(f"groups/{top['uuid']}", {"group": {"frozen_by_uuid": alice.user_uuid}})
    into = {"collection": {"owner_uuid": below["uuid"]}}
    assert (await alice.call("POST", "collections", into)).status == 403
    assert (await alice.call("PUT", f"groups/{below['uuid']}", {"group": {"name": "x"}})).status == 403
    await alice.put(f"groups/{top['uuid']}", {"group": {"frozen_by_uuid": None}})
    assert (await alice.post("collections", into))["owner_uuid"] == below["uuid"]


async def test_every_change_leaves_a_log_with_before_and_after(root: Client) -> None:
    made = await project(root, "old")
    await root.put(f"groups/{made['uuid']}", {"group": {"name": "new"}})
    logs = (await root.get("logs", filters=[["object_uuid", "=", made["uuid"]]], order=["id"]))["items"]
    assert [item["event_type"] for item in logs] == ["create", "update"]
    assert logs[0]["properties"]["old_attributes"] is None
    assert logs[1]["properties"]["old_attributes"]["name"] == "old"
    assert logs[1]["properties"]["new_attributes"]["name"] == "new"
    assert (logs[0]["object_kind"], logs[0]["summary"]) == ("arvados#group", f"create of {made['uuid']}")


async def test_tokens_are_seen_by_their_user_only_and_end_at_once(root: Client) -> None:
    alice, bob = await root.user("alice"), await root.user("bob")
    current = await alice.get("api_client_authorizations/current")
    assert current["owner_uuid"] == alice.user_uuid
    assert (await bob.call("GET", f"api_client_authorizations/{current['uuid']}")).status == 404
    listed = (await alice.get("api_client_authorizations"))["items"]
    assert [item["uuid"] for item in listed] == [current["uuid"]]
    bare = root.with_token(current["api_token"])
    assert (await bare.get("users/current"))["uuid"] == alice.user_uuid
    await alice.delete(f"api_client_authorizations/{current['uuid']}")
    assert (await alice.call("GET", "users/current")).status == 401


async def test_a_scope_limits_a_token(root: Client) -> None:
    alice = await root.user("alice")
    narrow = await alice.post(
        "api_client_authorizations", {"api_client_authorization": {"scopes": ["GET /arvados/v1/collections"]}}
    )
    limited = alice.with_token(narrow["api_token"])
    assert (await limited.call("GET", "collections")).status == 200
    assert (await limited.call("GET", "users/current")).status == 403
    assert (await limited.call("GET", "api_client_authorizations/current")).status == 200
    wider = await limited.call("POST", "api_client_authorizations", {"api_client_authorization": {}})
    assert wider.status == 403


async def test_reader_tokens_widen_what_is_read_and_never_what_is_written(root: Client) -> None:
    alice, bob = await root.user("alice"), await root.user("bob")
    made = await bob.post("collections", {"collection": {"name": "bobs"}})
    path = f"collections/{made['uuid']}"
    assert (await alice.call("GET", path)).status == 404
    assert (await alice.call("GET", path, reader_tokens=[bob.token])).status == 200
    changed = await alice.call("PUT", path, {"collection": {"name": "x"}, "reader_tokens": [bob.token]})
    assert changed.status == 404


async def test_others_are_shown_without_their_private_attributes(root: Client) -> None:
    alice, bob = await root.user("alice"), await root.user("bob")
    seen = await alice.get(f"users/{bob.user_uuid}")
    assert seen["email"] == "bob@example.org"
    assert "prefs" not in seen
    assert "created_at" not in seen
    assert "prefs" in await alice.get("users/current")
    assert (await alice.call("PUT", f"users/{bob.user_uuid}", {"user": {"first_name": "x"}})).status == 403
    mine = await alice.put(f"users/{alice.user_uuid}", {"user": {"prefs": {"x": 1}, "is_admin": True}})
    assert (mine["prefs"], mine["is_admin"]) == ({"x": 1}, False)


async def test_an_inactive_user_sees_itself_and_activates_when_invited(root: Client) -> None:
    carol = await root.user("carol", active=False)
    assert (await carol.get("users/current"))["is_active"] is False
    assert (await carol.get("collections"))["items"] == []
    assert (await carol.call("POST", "collections", {"collection": {}})).status == 403
    assert (await carol.call("POST", f"users/{carol.user_uuid}/activate")).status == 422
    await root.post("users/setup", {"uuid": carol.user_uuid})
    assert (await carol.post(f"users/{carol.user_uuid}/activate"))["is_active"] is True
    await root.post(f"users/{carol.user_uuid}/unsetup")
    assert (await carol.call("GET", "users/current")).status == 401


async def test_logins_of_a_virtual_machine_come_from_links_and_keys(root: Client) -> None:
    alice = await root.user("alice")
    machine = await root.post("virtual_machines", {"virtual_machine": {"hostname": "shell"}})
    await alice.post("authorized_keys", {"authorized_key": {"name": "k", "public_key": KEY}})
    await root.post("users/setup", {"uuid": alice.user_uuid, "vm_uuid": machine["uuid"]})
    items = (await root.get(f"virtual_machines/{machine['uuid']}/logins"))["items"]
    assert [(item["username"], item["hostname"], item["public_key"]) for item in items] == [("alice", "shell", KEY)]
    assert (await alice.call("GET", "virtual_machines/get_all_logins")).status == 403


async def test_keep_services_are_chosen_by_where_the_client_is(root: Client) -> None:
    for kind in ("disk", "proxy"):
        await root.post("keep_services", {"keep_service": {"service_host": kind, "service_port": 1,
                                                           "service_type": kind}})  # fmt: skip
    inside = await root.with_token(None).call("GET", "keep_services/accessible")
    assert [item["service_type"] for item in inside.body["items"]] == ["disk"]
    outside = await root.call("GET", "keep_services/accessible", headers={"X-External-Client": "1"})
    assert [item["service_type"] for item in outside.body["items"]] == ["proxy"]


async def test_a_workflow_takes_its_name_from_its_definition(root: Client) -> None:
    made = await root.post("workflows", {"workflow": {"definition": "name: sort\ndescription: sorts\n"}})
    assert (made["name"], made["description"]) == ("sort", "sorts")
    packed = json.dumps({"name": "packed", "steps": ["s"] * MAX_YAML})
    assert (await root.post("workflows", {"workflow": {"definition": packed}}))["name"] == "packed"
    for text in ("a: [1", "- s\n" * MAX_YAML):
        assert (await root.call("POST", "workflows", {"workflow": {"definition": text}})).status == 422


async def test_a_keyed_write_is_applied_once(root: Client) -> None:
    body = {"group": {"group_class": "project", "name": "once"}}
    headers = {"Idempotency-Key": "k1"}
    answers = await asyncio.gather(*(root.call("POST", "groups", body, headers=headers) for _ in range(8)))
    assert {answer.status for answer in answers} == {200}
    assert len({json.dumps(answer.body, sort_keys=True) for answer in answers}) == 1
    other = await root.call("POST", "groups", {"group": {"group_class": "project"}}, headers=headers)
    assert other.status == 422


async def test_computed_permissions_are_for_admins(root: Client) -> None:
    alice = await root.user("alice")
    rows = (await root.get("computed_permissions", filters=[["user_uuid", "=", alice.user_uuid]]))["items"]
    assert {"user_uuid": alice.user_uuid, "target_uuid": alice.user_uuid, "perm_level": "can_manage"}.items() <= next(
        row for row in rows if row["target_uuid"] == alice.user_uuid
    ).items()
    assert (await alice.call("GET", "computed_permissions")).status == 403


async def test_two_users_become_one(root: Client, api_database: str) -> None:
    alice, bob, carol = [await root.user(name) for name in ("alice", "bob", "carol")]
    shared = (await carol.post("groups", {"group": {"group_class": "project", "name": "shared"}}))["uuid"]
    for user, level in ((alice, "can_manage"), (bob, "can_read")):
        body = {"link_class": "permission", "name": level, "tail_uuid": user.user_uuid, "head_uuid": shared}
        await carol.post("links", {"link": body})
    mine = (await alice.post("groups", {"group": {"group_class": "project", "name": "mine"}}))["uuid"]
    inside = (await alice.post("collections", {"collection": {"name": "c", "owner_uuid": mine}}))["uuid"]
    loose = (await alice.post("collections", {"collection": {"name": "loose"}}))["uuid"]
    kept = (await bob.post("groups", {"group": {"group_class": "project", "name": "from alice"}}))["uuid"]
    merge = {"new_owner_uuid": kept, "new_user_token": bob.token, "redirect_to_new_user": True}
    assert (await carol.call("POST", "users/merge", {**merge, "new_owner_uuid": shared})).status == 403
    grant = {"link_class": "permission", "name": "can_write", "tail_uuid": bob.user_uuid, "head_uuid": mine}
    await alice.post("links", {"link": grant})
    assert (await alice.call("POST", "users/merge", {**merge, "new_owner_uuid": mine})).status == 422
    merged = await alice.post("users/merge", merge)
    assert merged["uuid"] == bob.user_uuid
    assert (await alice.get("users/current"))["uuid"] == bob.user_uuid
    for path in (f"groups/{mine}", f"collections/{loose}"):
        assert (await bob.get(path))["owner_uuid"] == kept
    assert (await bob.get(f"collections/{inside}"))["owner_uuid"] == mine
    await bob.put(f"groups/{shared}", {"group": {"name": "managed by bob"}})
    assert (await root.call("GET", f"users/{alice.user_uuid}")).status == 404
    assert (await alice.call("POST", "users/merge", {**merge, "new_owner_uuid": bob.user_uuid})).status == 422
    connection = await asyncpg.connect(api_database)
    table = await connection.fetch("SELECT user_uuid, target_uuid, perm_level FROM materialized_permissions")
    edges = await connection.fetch("SELECT tail, head, level FROM permission_edges")
    users = [row["uuid"] for row in await connection.fetch("SELECT uuid FROM users")]
    await connection.close()
    assert {tuple(row) for row in table} == expected_permissions(users, [tuple(row) for row in edges])


async def test_a_merge_logs_each_object_that_it_moves(root: Client, api_database: str) -> None:
    alice, bob = await root.user("alice"), await root.user("bob")
    project = (await alice.post("groups", {"group": {"group_class": "project", "name": "p"}}))["uuid"]
    inside = (await alice.post("collections", {"collection": {"owner_uuid": project, "name": "stays"}}))["uuid"]
    flow = await alice.post("workflows", {"workflow": {"name": "w"}})
    versioned = await alice.post("collections", {"collection": {"name": "v1", "preserve_version": True}})
    await alice.put(f"collections/{versioned['uuid']}", {"collection": {"name": "v2"}})
    more = 2 * MOVED_AT_ONCE + 1
    connection = await asyncpg.connect(api_database)
    try:
        await connection.execute(
            "INSERT INTO collections (uuid, owner_uuid, name, portable_data_hash, current_version_uuid)"
            " SELECT u, $1, u, 'x', u FROM generate_series(1, $2::integer) n,"
            " LATERAL (SELECT 'zzzzz-4zz18-m' || lpad(n::text, 14, '0') AS u) AS one", alice.user_uuid, more,
        )  # fmt: skip
        merge = {"old_user_uuid": alice.user_uuid, "new_user_uuid": bob.user_uuid}
        assert (await root.call("POST", "users/merge", {**merge, "new_owner_uuid": alice.user_uuid})).status == 422
        await root.post("users/merge", {**merge, "new_owner_uuid": bob.user_uuid})
        moved = "SELECT count(*) FROM collections WHERE owner_uuid = $1"
        assert await connection.fetchval(moved, bob.user_uuid) == more + 2  # a collection and its past version
    finally:
        await connection.close()
    logs = await root.get("logs", filters=[["event_type", "=", "update"], ["object_owner_uuid", "=", bob.user_uuid]],
                          limit=1000)  # fmt: skip
    changed = [item["object_uuid"] for item in logs["items"] if item["object_uuid"] != bob.user_uuid]
    assert len(changed) == len(set(changed)) == more + 3
    assert inside not in changed
    entry = next(item for item in logs["items"] if item["object_uuid"] == flow["uuid"])["properties"]
    assert (entry["old_attributes"]["owner_uuid"], entry["new_attributes"]["owner_uuid"]) == (
        alice.user_uuid, bob.user_uuid,
    )  # fmt: skip
    assert entry["old_attributes"]["modified_at"] == flow["modified_at"] < entry["new_attributes"]["modified_at"]
    assert entry["old_etag"] == flow["etag"]


async def test_an_admin_merges_users_without_their_tokens(root: Client) -> None:
    alice, bob = [await root.user(name) for name in ("alice", "bob")]
    await alice.post("collections", {"collection": {"name": "c"}})
    merge = {"old_user_uuid": alice.user_uuid, "new_user_uuid": bob.user_uuid, "new_owner_uuid": bob.user_uuid}
    assert (await alice.call("POST", "users/merge", merge)).status == 403
    await root.post("users/merge", merge)
    assert [item["name"] for item in (await bob.get("collections"))["items"]] == ["c"]
    assert (await alice.get("users/current"))["uuid"] == alice.user_uuid


async def test_users_are_brought_up_to_date_at_once(root: Client) -> None:
    alice = await root.user("alice")
    new = "zzzzz-tpzed-madebybatchupda"
    updates = {alice.user_uuid: {"first_name": "Ada"}, new: {"email": "new@example.org", "is_active": True}}
    assert (await alice.call("PATCH", "users/batch_update", {"updates": updates})).status == 403
    found = await root.call("PATCH", "users/batch_update", {"updates": updates})
    assert found.status == 200, found.body
    assert {item["uuid"] for item in found.body["items"]} == {alice.user_uuid, new}
    assert (await alice.get("users/current"))["first_name"] == "Ada"
    assert (await root.get(f"users/{new}"))["email"] == "new@example.org"
    wrong = {alice.user_uuid: {"first_name": "Eve"}, new: {"nosuch": 1}}
    assert (await root.call("PATCH", "users/batch_update", {"updates": wrong})).status == 422
    assert (await alice.get("users/current"))["first_name"] == "Ada"


async def test_a_list_says_how_many_there_are_whichever_page_is_asked_for(root: Client) -> None:
    inside = (await root.post("groups", {"group": {"group_class": "project", "name": "p"}}))["uuid"]
    for number in range(5):
        body = {"owner_uuid": inside, "name": f"c{number}", "description": "even" if number % 2 == 0 else "odd"}
        await root.post("collections", {"collection": body})
    mine, pages = [["owner_uuid", "=", inside]], ((2, 0, 2), (2, 4, 1), (5, 0, 5), (6, 0, 5), (0, 0, 0), (3, 9, 0))
    for limit, offset, items in pages:
        found = await root.get("collections", filters=mine, limit=limit, offset=offset)
        assert (len(found["items"]), found["items_available"]) == (items, 5), (limit, offset)
        assert "items_available" not in (found["items"] or [{}])[0]
    found = await root.get("collections", filters=mine, limit=1, distinct=True, select=["description"])
    assert (len(found["items"]), found["items_available"]) == (1, 2)
    assert "items_available" not in await root.get("collections", filters=mine, count="none")
    one = (await root.get("collections", filters=mine, limit=1))["items"][0]
    again = (await root.get("collections", filters=[["uuid", "=", one["uuid"]]], count="none"))["items"][0]
    assert again == one
