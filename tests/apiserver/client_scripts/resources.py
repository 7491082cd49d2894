"""Runs in the official client's environment: every resource through `arvados.api('v1')`, unmodified."""

import json
import sys
import uuid

import arvados
import arvados.errors
import arvados.util

api = arvados.api("v1", cache=False)
me = api.users().current().execute()
assert me["is_admin"], me
done = ["users.current"]


def status_of(request, text=""):
    """Return with which status a call fails, and whether the error shows a text."""
    try:
        request.execute()
    except arvados.errors.ApiError as error:
        return error.resp.status, text in str(error)
    return 200, False


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl test@example"
BODIES = {
    "groups": ("group", {"group_class": "project", "name": "p"}, {"name": "q"}),
    "links": (
        "link",
        {"link_class": "star", "name": "s", "tail_uuid": me["uuid"], "head_uuid": me["uuid"]},
        {"name": "t"},
    ),
    "collections": ("collection", {"name": "c"}, {"name": "d"}),
    "logs": ("log", {"object_uuid": me["uuid"], "event_type": "note"}, {"summary": "s"}),
    "nodes": ("node", {}, {"properties": {"a": 1}}),
    "workflows": ("workflow", {"definition": "name: w\n"}, {"name": "x"}),
    "virtual_machines": ("virtual_machine", {"hostname": "h"}, {"hostname": "i"}),
    "keep_services": (
        "keep_service",
        {"service_host": "k", "service_port": 1, "service_type": "disk"},
        {"service_port": 2},
    ),
    "users": ("user", {"email": "a@example.org"}, {"first_name": "f"}),
    "authorized_keys": ("authorized_key", {"name": "k", "public_key": KEY}, {"name": "l"}),
    "containers": ("container", {"command": ["true"], "container_image": "x", "output_path": "/o"}, {"priority": 1}),
    "api_client_authorizations": ("api_client_authorization", {}, {"scopes": ["GET /"]}),
    "container_requests": (
        "container_request",
        {
            "name": "r",
            "command": ["true"],
            "container_image": "x",
            "output_path": "/o",
            "mounts": {"/o": {"kind": "tmp"}},
        },
        {"name": "s"},
    ),
}
known = json.loads(sys.argv[1])
for name in known:
    wrapper, create, update = BODIES[name]
    resource = getattr(api, name)()
    made = resource.create(body={wrapper: create}).execute()
    got = resource.get(uuid=made["uuid"]).execute()
    assert got["uuid"] == made["uuid"], (name, got)
    changed = resource.update(uuid=made["uuid"], body={wrapper: update}).execute()
    for key, value in update.items():
        assert changed[key] == value, (name, key, changed)
    listed = resource.list(filters=[["uuid", "=", made["uuid"]]]).execute()
    assert [item["uuid"] for item in listed["items"]] == [made["uuid"]], (name, listed)
    resource.delete(uuid=made["uuid"]).execute()
    assert status_of(resource.get(uuid=made["uuid"])) == (404, True), name
    done.append(name)

rows = list(arvados.util.iter_computed_permissions(api.computed_permissions().list))
assert any(row["user_uuid"] == row["target_uuid"] == me["uuid"] for row in rows)
assert len({(row["user_uuid"], row["target_uuid"]) for row in rows}) == len(rows)
done.append("computed permissions")

many = ["zzzzz-tpzed-" + uuid.uuid4().hex[:15] for _ in range(160)] + [me["uuid"]]
found = api.users().list(filters=[["uuid", "in", many]]).execute()
assert [item["uuid"] for item in found["items"]] == [me["uuid"]]
done.append("long filter")

seen = [
    item["uuid"]
    for item in arvados.util.keyset_list_all(
        api.logs().list, order_key="created_at", filters=[["event_type", "=", "bulk"]]
    )
]
assert len(seen) == len(set(seen)) == int(sys.argv[2]), (len(seen), len(set(seen)))
done.append(f"keyset over {len(seen)} logs")

wrong = api.collections().create(body={"collection": {"manifest_text": "wrong"}})
assert status_of(wrong, "manifest_text") == (422, True)
done.append("error text")
sys.stdout.write(json.dumps(done))
