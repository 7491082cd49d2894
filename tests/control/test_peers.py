"""In what another balancer's status differs from ours, in words."""

import copy
from typing import Any

import pytest

from balancer.control.peers import differences
from tests.control.harness import nodes, rig, until

Document = dict[str, Any]


def node(name: str, admin: str = "enabled", health: str = "healthy", address: str = "10.0.0.1:80") -> Document:
    return {"name": name, "admin": admin, "health": health, "address": address}


OURS: Document = {
    "cluster": "x",
    "version": "1",
    "pause": None,
    "removed": [],
    "nodes": [node("a"), node("b")],
    "designations": [{"name": "dns", "node": "a", "epoch": 3}],
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"cluster": "y", "version": "2"}, ["it is in front of another cluster, y"]),
        ({"version": "2"}, ["arv-balance is 1 here, 2 there"]),
        ({"pause": {"who": "root"}}, ["traffic is paused there by root, not here"]),
        ({"nodes": [node("a"), node("b", "draining")]}, ["b is healthy here, drained there"]),
        ({"nodes": [node("a"), node("b", health="unhealthy")]}, ["b is healthy here, unhealthy there"]),
        ({"nodes": [node("a"), node("b", address="10.0.0.2:80")]}, ["b is at 10.0.0.1:80 here, at 10.0.0.2:80 there"]),
        ({"nodes": [node("a")]}, ["b is healthy here, unknown there"]),
        ({"nodes": [node("a")], "removed": ["b"]}, ["b is healthy here, removed there"]),
        ({"nodes": [*OURS["nodes"], node("c")]}, ["c is unknown here, healthy there"]),
        (
            {"designations": [{"name": "dns", "node": "b", "epoch": 2}]},
            ["dns is at a here (epoch 3), at b there (epoch 2)"],
        ),
        (
            {"designations": [{"name": "dns", "node": "a", "epoch": 2}]},
            ["dns has epoch 3 here, 2 there: nodes refuse what the lower one sends"],
        ),
        ({"designations": []}, ["designation dns is only here"]),
    ],
)
def test_differences_are_said_in_words(change: Document, said: list[str]) -> None:
    assert list(differences(OURS, {**copy.deepcopy(OURS), **change})) == said


def test_a_node_that_drains_is_as_one_that_has_drained() -> None:
    draining, drained = ({**OURS, "nodes": [node("a", admin)]} for admin in ("draining", "drained"))
    assert list(differences(draining, drained)) == []


async def test_a_peer_that_cannot_be_asked_or_is_none_is_a_cause_and_service_goes_on() -> None:
    async with nodes("api1", "stranger") as fakes:
        peers = {"gone": {"admin": "http://127.0.0.1:9"}, "stranger": {"admin": fakes[1].url}, "silent": {}}
        async with rig(fakes[:1], peers=peers) as control:
            found = await until(lambda: causes(control))
            assert found == [
                "peer gone: cannot be asked: connection refused",
                "peer stranger: its status is not one that this version understands",
            ]
            status = await control.get("/v1/status")
            assert [peer["name"] for peer in status["peers"]] == ["gone", "stranger", "silent"]
            await control.until_states(api1="healthy")


async def causes(control: Any) -> list[str]:
    found: list[str] = (await control.get("/v1/status"))["causes"]
    return [cause for cause in found if cause.startswith("peer")]
