"""Requests and containers: commit, reuse, lock, run, finish, retry, cancel, priorities down the tree."""

from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.api import Client, api_database, api_template, root
from tests.support.postgres import postgres_server

__all__ = ["api_database", "api_template", "postgres_server", "root"]
pytestmark = pytest.mark.pg
IMAGE = ". acbd18db4cc2f85cedef654fccc4a4d8+3 0:3:image.tar\n"
OUTPUT = ". acbd18db4cc2f85cedef654fccc4a4d8+3 0:3:out.txt\n"


@dataclass
class Bench:
    """A cluster with an image, an output, a user and a dispatcher."""

    root: Client
    alice: Client
    image: str
    output: str

    def body(self, **more: Any) -> dict[str, Any]:
        return {
            "container_request": {
                "command": ["true"], "container_image": self.image, "output_path": "/out", "priority": 1,
                "state": "Committed", "mounts": {"/out": {"kind": "tmp", "capacity": 1}},
                "runtime_constraints": {"vcpus": 1, "ram": 1}, **more,
            }
        }  # fmt: skip

    async def commit(self, client: Client | None = None, **more: Any) -> dict[str, Any]:
        made: dict[str, Any] = await (client or self.alice).post("container_requests", self.body(**more))
        return made

    async def container(self, uuid: str) -> dict[str, Any]:
        found: dict[str, Any] = await self.root.get(f"containers/{uuid}")
        return found

    async def start(self, uuid: str) -> None:
        await self.root.post(f"containers/{uuid}/lock")
        await self.change(uuid, state="Running")

    async def change(self, uuid: str, **values: Any) -> None:
        await self.root.put(f"containers/{uuid}", {"container": values})

    async def finish(self, uuid: str) -> None:
        await self.start(uuid)
        await self.change(uuid, state="Complete", exit_code=0, output=self.output, log=self.output)

    async def inside(self, uuid: str) -> Client:
        """A client with the container's own token."""
        token = await self.root.get(f"containers/{uuid}/auth")
        return self.root.with_token(f"v2/{token['uuid']}/{token['api_token']}")


@pytest.fixture
async def bench(root: Client) -> Bench:
    alice = await root.user("alice")
    hashes = []
    for manifest in (IMAGE, OUTPUT):
        made = await root.post("collections", {"collection": {"manifest_text": manifest}})
        hashes.append(made["portable_data_hash"])
        grant = {"link_class": "permission", "name": "can_read", "tail_uuid": alice.user_uuid,
                 "head_uuid": made["uuid"]}  # fmt: skip
        await root.post("links", {"link": grant})
    return Bench(root, alice, *hashes)


async def test_a_committed_request_runs_to_its_end(bench: Bench) -> None:
    request = await bench.commit(name="job", output_name="result", output_properties={"k": "v"})
    uuid = request["container_uuid"]
    queued = await bench.container(uuid)
    assert (queued["state"], queued["runtime_constraints"]["vcpus"]) == ("Queued", 1)
    assert queued["priority"] > 0
    await bench.finish(uuid)
    done = await bench.alice.get(f"container_requests/{request['uuid']}")
    assert done["state"] == "Final"
    result = await bench.alice.get(f"collections/{done['output_uuid']}")
    assert (result["name"], result["portable_data_hash"]) == ("result", bench.output)
    assert result["properties"] == {"type": "output", "container_request": request["uuid"], "k": "v"}
    assert (await bench.alice.get(f"collections/{done['log_uuid']}"))["properties"]["type"] == "log"
    finished = await bench.container(uuid)
    assert finished["started_at"] <= finished["finished_at"]


async def test_the_same_work_is_done_once(bench: Bench) -> None:
    first = await bench.commit()
    assert (await bench.commit())["container_uuid"] == first["container_uuid"]
    other = await bench.commit(use_existing=False)
    assert other["container_uuid"] != first["container_uuid"]
    await bench.finish(first["container_uuid"])
    assert (await bench.commit())["container_uuid"] == first["container_uuid"]


async def test_a_container_is_locked_by_one_dispatcher(bench: Bench) -> None:
    uuid = (await bench.commit())["container_uuid"]
    locked = await bench.root.post(f"containers/{uuid}/lock")
    assert (locked["state"], locked["lock_count"]) == ("Locked", 1)
    again = await bench.root.call("POST", f"containers/{uuid}/lock")
    assert again.status == 422
    token = await bench.root.post("api_client_authorizations/create_system_auth")
    other = bench.root.with_token(token["api_token"])
    assert (await other.call("POST", f"containers/{uuid}/unlock")).status == 403
    unlocked = await bench.root.post(f"containers/{uuid}/unlock")
    assert (unlocked["state"], unlocked["auth_uuid"], unlocked["locked_by_uuid"]) == ("Queued", None, None)
    assert (await bench.alice.call("POST", f"containers/{uuid}/lock")).status == 403


async def test_a_cancelled_container_is_tried_again_up_to_the_limit(bench: Bench) -> None:
    request = await bench.commit(container_count_max=2)
    first = request["container_uuid"]
    await bench.start(first)
    await bench.change(first, state="Cancelled")
    second = await bench.alice.get(f"container_requests/{request['uuid']}")
    assert (second["state"], second["container_count"]) == ("Committed", 2)
    assert second["container_uuid"] != first
    await bench.start(second["container_uuid"])
    await bench.change(second["container_uuid"], state="Cancelled")
    assert (await bench.alice.get(f"container_requests/{request['uuid']}"))["state"] == "Final"


async def test_requests_that_share_a_cancelled_container_go_on_to_one_other(bench: Bench) -> None:
    first, second = await bench.commit(), await bench.commit()
    assert first["container_uuid"] == second["container_uuid"]
    await bench.start(first["container_uuid"])
    await bench.change(first["container_uuid"], state="Cancelled")
    after = [await bench.alice.get(f"container_requests/{one['uuid']}") for one in (first, second)]
    assert after[0]["container_uuid"] == after[1]["container_uuid"] != first["container_uuid"]
    assert [one["container_count"] for one in after] == [2, 2]


async def test_too_many_unlocks_cancel_a_container(bench: Bench) -> None:
    uuid = (await bench.commit(container_count_max=1))["container_uuid"]
    for _ in range(10):
        await bench.root.post(f"containers/{uuid}/lock")
        await bench.root.post(f"containers/{uuid}/unlock")
    ended = await bench.container(uuid)
    assert ended["state"] == "Cancelled"
    assert "10 attempts" in ended["runtime_status"]["error"]


async def test_priority_zero_takes_work_back(bench: Bench) -> None:
    request = await bench.commit()
    await bench.alice.put(f"container_requests/{request['uuid']}", {"container_request": {"priority": 0}})
    assert (await bench.container(request["container_uuid"]))["priority"] == 0
    assert (await bench.root.call("POST", f"containers/{request['container_uuid']}/lock")).status == 422


async def test_children_follow_the_priority_and_the_end_of_their_parent(bench: Bench) -> None:
    request = await bench.commit(command=["parent"])
    parent = request["container_uuid"]
    await bench.start(parent)
    inside = await bench.inside(parent)
    child = await bench.commit(inside, command=["child"], priority=500)
    assert child["requesting_container_uuid"] == parent
    assert (await inside.get("containers/current"))["uuid"] == parent
    higher = await bench.container(parent)
    assert (await bench.container(child["container_uuid"]))["priority"] == higher["priority"]
    await bench.alice.put(f"container_requests/{request['uuid']}", {"container_request": {"priority": 10}})
    raised = await bench.container(parent)
    assert raised["priority"] > higher["priority"]
    assert (await bench.container(child["container_uuid"]))["priority"] == raised["priority"]
    await bench.change(parent, state="Complete", exit_code=0, output=bench.output, log=bench.output)
    ended = await bench.root.get(f"container_requests/{child['uuid']}")
    assert (ended["state"], ended["priority"]) == ("Final", 0)
    assert (await bench.container(child["container_uuid"]))["priority"] == 0


async def test_requests_in_a_trashed_project_do_not_count(bench: Bench) -> None:
    project = await bench.alice.post("groups", {"group": {"group_class": "project", "name": "p"}})
    request = await bench.commit(owner_uuid=project["uuid"])
    await bench.alice.delete(f"groups/{project['uuid']}")
    assert (await bench.container(request["container_uuid"]))["priority"] == 0
    await bench.alice.post(f"groups/{project['uuid']}/untrash")
    assert (await bench.container(request["container_uuid"]))["priority"] > 0


async def test_secrets_are_never_shown_and_gone_at_the_end(bench: Bench) -> None:
    secret = {"/secret": {"kind": "text", "content": "hush"}}
    request = await bench.commit(secret_mounts=secret)
    assert "secret_mounts" not in request
    uuid = request["container_uuid"]
    await bench.start(uuid)
    inside = await bench.inside(uuid)
    assert (await inside.get(f"containers/{uuid}/secret_mounts"))["secret_mounts"] == secret
    assert (await bench.root.call("GET", f"containers/{uuid}/secret_mounts")).status == 403
    logs = await bench.root.get("logs", filters=[["object_uuid", "in", [uuid, request["uuid"]]]])
    assert "hush" not in str(logs)


async def test_a_container_reports_by_its_own_token_what_it_may(bench: Bench) -> None:
    uuid = (await bench.commit())["container_uuid"]
    await bench.start(uuid)
    inside = await bench.inside(uuid)
    seen = await inside.put(f"containers/{uuid}", {"container": {"progress": 0.5}})
    assert seen["progress"] == 0.5
    assert (await inside.call("PUT", f"containers/{uuid}", {"container": {"priority": 1}})).status == 403
    await bench.change(uuid, state="Complete", exit_code=1)
    assert (await inside.call("GET", "users/current")).status == 401


@pytest.mark.parametrize(
    "wrong",
    [
        {"command": []}, {"command": "text"}, {"output_path": "/nowhere"}, {"priority": 1001}, {"priority": None},
        {"runtime_constraints": {"vcpus": 0, "ram": 1}}, {"runtime_constraints": {"nosuch": 1}},
        {"environment": {"a=b": "c"}}, {"environment": {"a": 1}}, {"mounts": {"out": {"kind": "tmp"}}},
        {"mounts": {"/out": {"kind": "nosuch"}}}, {"container_image": "nosuch"}, {"state": "Final"},
        {"scheduling_parameters": {"max_run_time": -1}}, {"container_count_max": 0},
    ],
)  # fmt: skip
async def test_a_request_that_cannot_be_run_is_refused(bench: Bench, wrong: dict[str, Any]) -> None:
    response = await bench.alice.call("POST", "container_requests", bench.body(**wrong))
    assert response.status == 422, response.body


async def test_a_committed_request_keeps_what_was_committed(bench: Bench) -> None:
    request = await bench.commit()
    changed = await bench.alice.call(
        "PUT", f"container_requests/{request['uuid']}", {"container_request": {"command": ["false"]}}
    )
    assert changed.status == 422
    named = await bench.alice.put(f"container_requests/{request['uuid']}", {"container_request": {"name": "n"}})
    assert named["name"] == "n"


async def test_requests_are_found_by_attributes_of_their_container(bench: Bench) -> None:
    request = await bench.commit()
    for state, found in (("Queued", [request["uuid"]]), ("Running", [])):
        listed = await bench.alice.get("container_requests", filters=[["container.state", "=", state]])
        assert [item["uuid"] for item in listed["items"]] == found
    like = await bench.alice.get("container_requests", filters=[["command", "like", '["tru%']])
    assert len(like["items"]) == 1
