"""Container requests and containers against a small model of their states, whatever users and dispatchers do."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test

from apiserver.settings import Containers
from tests.support.api import api_template, settings
from tests.support.postgres import TestServer, postgres_server
from tests.support.target import Target, target_on

__all__ = ["api_template", "postgres_server"]
pytestmark = [pytest.mark.pg, pytest.mark.timeout(600)]
IMAGE = ". acbd18db4cc2f85cedef654fccc4a4d8+3 0:3:image.tar\n"
ATTEMPTS = 2  # unlocks before a container is cancelled
AFTER = {
    "Queued": {"Queued", "Cancelled"},  # Locked by `lock` alone
    "Locked": {"Locked", "Running", "Cancelled"},
    "Running": {"Running", "Complete", "Cancelled"},
    "Complete": {"Complete", "Cancelled"},
    "Cancelled": {"Cancelled"},
}


@dataclass
class Job:
    """A container as the model sees it."""

    state: str = "Queued"
    locks: int = 0


@dataclass
class Wish:
    """A container request as the model sees it."""

    command: str
    state: str
    priority: int
    most: int
    container: str | None = None
    count: int = 0


@dataclass
class Model:
    """What should be there, by uuid."""

    wishes: dict[str, Wish] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)

    def live(self, command: str) -> str | None:
        """The container that a request for a command would share."""
        known = {wish.container for wish in self.wishes.values() if wish.command == command and wish.container}
        return next((uuid for uuid in known if self.jobs[uuid].state in ("Queued", "Locked", "Running")), None)

    def waiting(self, container: str) -> dict[str, Wish]:
        """Requests that a container's end concerns."""
        return {u: w for u, w in self.wishes.items() if w.container == container and w.state == "Committed"}

    def wanted(self, container: str) -> bool:
        """Whether somebody gives the container a priority."""
        return any(wish.priority > 0 for wish in self.waiting(container).values())


class Machine(RuleBasedStateMachine):
    """Does things to a node and to the model."""

    target: ClassVar[Target]
    image: ClassVar[str]
    commands: ClassVar[int] = 0
    wishes = Bundle("wishes")
    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()

    def _show(self, resource: str, uuid: str) -> dict[str, Any]:
        found: dict[str, Any] = self.target.good("GET", f"{resource}/{uuid}")
        return found

    def _settle(self, uuid: str, container: str | None) -> None:
        """Take over which container a request was given; the invariants judge it."""
        wish = self.model.wishes[uuid]
        wish.state, wish.container, wish.count = "Committed", container, 1
        assert container is not None
        self.model.jobs.setdefault(container, Job())

    @rule(
        target=wishes, priority=st.sampled_from([1, 500, 0]), most=st.integers(2, 4),
        commit=st.sampled_from([True, True, True, False]), like=st.none() | wishes | wishes | wishes,
    )  # fmt: skip
    def ask(self, priority: int, most: int, commit: bool, like: str | None) -> str:
        if like is None or like not in self.model.wishes:
            type(self).commands += 1
            command = f"command {self.commands}"
        else:
            command = self.model.wishes[like].command
        shared = self.model.live(command)
        made = self.target.good("POST", "container_requests", {"container_request": {
            "command": [command], "container_image": self.image, "output_path": "/o", "priority": priority,
            "container_count_max": most, "state": "Committed" if commit else "Uncommitted",
            "mounts": {"/o": {"kind": "tmp"}}, "runtime_constraints": {"vcpus": 1, "ram": 1},
        }})  # fmt: skip
        uuid = str(made["uuid"])
        self.model.wishes[uuid] = Wish(command, "Uncommitted", priority, most)
        if commit:
            assert shared is None or made["container_uuid"] == shared
            self._settle(uuid, made["container_uuid"])
        return uuid

    @rule(uuid=wishes)
    def commit(self, uuid: str) -> None:
        wish = self.model.wishes[uuid]
        shared = self.model.live(wish.command)
        status, made = self.target.call("PUT", f"container_requests/{uuid}", {"container_request": {
            "state": "Committed"}})  # fmt: skip
        assert status == (422 if wish.state == "Final" else 200), made
        if wish.state == "Uncommitted":
            assert shared is None or made["container_uuid"] == shared
            self._settle(uuid, made["container_uuid"])

    @rule(uuid=wishes, priority=st.sampled_from([0, 1, 1000, 1001, -1]))
    def prioritise(self, uuid: str, priority: int) -> None:
        wish = self.model.wishes[uuid]
        possible = 0 <= priority <= 1000 and (wish.state != "Final" or priority == wish.priority)
        status, made = self.target.call("PUT", f"container_requests/{uuid}", {"container_request": {
            "priority": priority}})  # fmt: skip
        assert status == (200 if possible else 422), made
        if possible:
            wish.priority = priority

    @rule(uuid=wishes)
    def take_back(self, uuid: str) -> None:
        before = self.model.wishes[uuid].state
        status, made = self.target.call("PUT", f"container_requests/{uuid}", {"container_request": {
            "state": "Uncommitted"}})  # fmt: skip
        assert status == (200 if before == "Uncommitted" else 422), made

    @rule(uuid=wishes)
    def change_the_command(self, uuid: str) -> None:
        before = self.model.wishes[uuid].state
        if before != "Uncommitted":
            status, made = self.target.call("PUT", f"container_requests/{uuid}", {"container_request": {
                "command": ["another"]}})  # fmt: skip
            assert status == 422, made

    @rule(target=jobs, uuid=wishes)
    def look(self, uuid: str) -> str:
        return self.model.wishes[uuid].container or ""

    @rule(uuid=consumes(jobs), state=st.sampled_from(["lock", "unlock", "Cancelled", *AFTER]), again=st.booleans())
    def dispatch(self, uuid: str, state: str, again: bool) -> None:
        if not uuid:
            return
        for _ in range(1 + again):
            if state in ("lock", "unlock"):
                self._lock(uuid, state)
            elif state != "Locked":
                self._change(uuid, state)

    def _lock(self, uuid: str, verb: str) -> None:
        job = self.model.jobs[uuid]
        possible = job.state == "Locked" if verb == "unlock" else job.state == "Queued" and self.model.wanted(uuid)
        status, made = self.target.call("POST", f"containers/{uuid}/{verb}")
        assert status == (200 if possible else 422), made
        if possible and verb == "lock":
            job.state, job.locks = "Locked", job.locks + 1
        elif possible:
            job.state = "Queued"
            if job.locks >= ATTEMPTS:
                self._ended(uuid, "Cancelled")

    def _change(self, uuid: str, state: str) -> None:
        job = self.model.jobs[uuid]
        possible = state in AFTER[job.state] or (job.state, state) == ("Locked", "Queued")
        status, made = self.target.call("PUT", f"containers/{uuid}", {"container": {"state": state}})
        assert status == (200 if possible else 422), made
        if possible and state != job.state and state in ("Complete", "Cancelled"):
            self._ended(uuid, state)
        elif possible:
            job.state = state

    def _ended(self, uuid: str, state: str) -> None:
        """Requests that may try again move to one new container, the others end."""
        self.model.jobs[uuid].state = state
        successors = set()
        for request, wish in self.model.waiting(uuid).items():
            if state == "Cancelled" and wish.priority > 0 and wish.count < wish.most:
                wish.container, wish.count = self._show("container_requests", request)["container_uuid"], wish.count + 1
                successors.add(wish.container)
            else:
                wish.state = "Final"
        assert len(successors) <= 1
        for successor in successors:
            assert successor not in self.model.jobs
            self.model.jobs[str(successor)] = Job()

    @invariant()
    def all_is_as_modelled(self) -> None:
        requests = self.target.good(
            "GET", "container_requests", filters=[["uuid", "in", [*self.model.wishes]]], limit=1000
        )["items"]
        found = {r["uuid"]: (r["state"], r["priority"], r["container_uuid"], r["container_count"]) for r in requests}
        assert found == {u: (w.state, w.priority, w.container, w.count) for u, w in self.model.wishes.items()}
        containers = self.target.good("GET", "containers", filters=[["uuid", "in", [*self.model.jobs]]], limit=1000)[
            "items"
        ]
        states = {c["uuid"]: (c["state"], c["lock_count"]) for c in containers}
        assert states == {uuid: (job.state, job.locks) for uuid, job in self.model.jobs.items()}
        wanted = {c["uuid"]: c["priority"] > 0 for c in containers if c["state"] in ("Queued", "Locked", "Running")}
        assert wanted == {uuid: self.model.wanted(uuid) for uuid in wanted}


@pytest.fixture(scope="module")
def target(postgres_server: TestServer, api_template: str) -> Iterator[Target]:
    name = asyncio.run(postgres_server.create(api_template))
    with target_on(settings(postgres_server.dsn(name), containers=Containers(max_dispatch_attempts=ATTEMPTS))) as found:
        yield found
    asyncio.run(postgres_server.drop(name))


def test_requests_and_containers_go_through_their_states_as_the_model_says(target: Target) -> None:
    Machine.target = target
    made = target.good("POST", "collections", {"collection": {"manifest_text": IMAGE}})
    Machine.image = str(made["portable_data_hash"])
    examples = max(15, profile.default.max_examples // 5) if profile.default else 15
    run_state_machine_as_test(Machine, settings=profile(max_examples=examples, stateful_step_count=20, deadline=None))
