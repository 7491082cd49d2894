"""Gathers the facts: files first, then all nodes at once, all within one deadline."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from balancer.config import build
from balancer.config.addresses import node_url
from balancer.config.certificates import describe
from balancer.config.errors import Fault
from balancer.config.file import Loaded
from balancer.config.inventory import Inventory, Node
from balancer.config.schema import Config
from balancer.config.secrets import reveal
from balancer.config.section import Secret
from balancer.control import plans
from balancer.control.doctor.asking import Address, Asker, together, wall_clock
from balancer.control.doctor.facts import (
    Certificate,
    Dns,
    Document,
    Facts,
    FileFacts,
    Job,
    NodeFacts,
    Reply,
    Thresholds,
)
from balancer.control.doctor.machine import disk, file_facts, machine
from balancer.control.doctor.rules.nodes import SENT_ID
from balancer.control.probe import Expectation, judge
from balancer.control.site import fingerprint
from balancer.errors import ConfigError
from balancer.model import Node as Target

_IDLE_SPARE_S = 0.1
_LOGIN = "/login?return_to=/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the caller knows already. `loaded` may have faults, as long as its `config` can be used.

    `is_local`: the balancer that gave the status runs on this machine.
    """

    loaded: Loaded
    status: Document | None
    status_fault: str = ""
    is_local: bool = False
    shadows: tuple[Fault, ...] = ()
    dns: Dns | None = None
    jobs: tuple[Job, ...] | None = None
    jobs_fault: str = ""
    limits: Thresholds = field(default_factory=Thresholds)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the nodes are asked, read from files before."""

    config: Config
    is_arvados: bool
    addresses: tuple[Address, ...]
    token: str = field(default="", repr=False)
    unwanted: frozenset[str] = frozenset()

    def fields(self) -> dict[str, str]:
        """Return the fields of a health check."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


def facts(given: Given, *, timeout_s: float, wall: Callable[[], float] = wall_clock) -> Facts:
    """Return everything; takes at most about `timeout_s`. Raises ConfigError when a node's authority cannot be read."""
    loaded = given.loaded
    config = _with_added(loaded.config, given.status)
    plan = _plan(loaded, config, given.status)
    nodes, anonymous = asyncio.run(_ask(plan, timeout_s, wall))
    worker, why = _worker(given)
    return Facts(
        config=config,
        path=loaded.path,
        sha256=fingerprint(Path(loaded.path).read_bytes()),
        faults=loaded.faults,
        shadows=given.shadows,
        cluster=loaded.cluster,
        nodes=nodes,
        status=given.status,
        status_fault=given.status_fault,
        listener_certificates=tuple(_listener_certificates(config)),
        files=tuple(file_facts(path, use) for path, use in _secret_files(config).items()),
        state_dir=_state_dir(config, is_running=given.status is not None),
        admin_socket=file_facts(config.admin.socket, "admin socket"),
        disk=disk(config.state.dir),
        machine=machine(worker, why),
        anonymous_admin=anonymous,
        dns=given.dns,
        jobs=given.jobs,
        jobs_fault=given.jobs_fault,
        now=datetime.fromtimestamp(wall(), UTC),
        limits=given.limits,
    )


def _with_added(config: Config, status: Document | None) -> Config:
    """Return the configuration with the nodes that were added at run time, and without removed ones."""
    nodes = dict(config.node_map)
    for node in status["nodes"] if status is not None else ():
        if node["origin"] == "added":
            nodes[node["name"]] = Node(url=node_url(node["url"]), capacity=node["capacity"])
    for name in status["removed"] if status is not None else ():
        nodes.pop(name, None)
    return config.model_copy(update={"nodes": nodes})


def _plan(loaded: Loaded, config: Config, status: Document | None) -> _Plan:
    without_listeners = config.model_copy(update={"listen": ()})  # their certificates may be what is wrong
    targets = build.snapshot(without_listeners, generation=0, workers=1).snapshot.nodes
    contexts = plans.contexts(config, targets)
    drained = {node["name"] for node in status["nodes"] if node["admin"] != "enabled"} if status is not None else set()
    return _Plan(
        config,
        config.preset == "arvados" or loaded.cluster is not None,
        tuple(_address(config, node, contexts.get(node.name)) for node in targets),
        _token(loaded),
        frozenset(drained),
    )


def _token(loaded: Loaded) -> str:
    """Return the token of health checks, "" when it cannot be read: one of the faults says so."""
    secret, source = loaded.config.health.token, loaded.config.nodes
    if secret is None:
        return ""
    with suppress(ConfigError):
        return reveal(secret, cluster=source.source.cluster if isinstance(source, Inventory) else None)
    return ""


def _address(config: Config, node: Target, context: ssl.SSLContext | None) -> Address:
    authority = config.health.host or (node.url.partition("//")[2] if "//" in node.url else node.authority)
    return Address(node, authority, context)


def _worker(given: Given) -> tuple[int | None, str]:
    if given.status is None:
        return None, given.status_fault
    workers = [item["pid"] for item in given.status["workers"] if not item["stopping"]]
    if not given.is_local:
        return None, "the balancer runs on another machine"
    return (workers[0], "") if workers else (None, "no worker runs")


def _state_dir(config: Config, *, is_running: bool) -> FileFacts:
    found = file_facts(config.state.dir, "state")
    above = Path(config.state.dir).parent
    if found.fault and not is_running and above.is_dir():  # made at the first start
        return replace(file_facts(str(above), "state"), path=config.state.dir)
    return found


def _listener_certificates(config: Config) -> "list[Certificate]":
    found = []
    for listen in config.listen:
        if listen.tls is None:
            continue
        for path in [*([listen.tls.cert] if listen.tls.cert else []), *(one.cert for one in listen.tls.certificates)]:
            try:
                shown = describe(Path(path).read_bytes(), path)
            except (OSError, ConfigError) as exc:
                found.append(Certificate(path, str(exc)))
            else:
                found.append(Certificate(path, "", shown.names, shown.not_after))
    return found


def _secret_files(config: Config) -> dict[str, str]:
    """Return the files that hold secrets, with what they are."""
    found: dict[str, str] = {}
    for listen in config.listen:
        tls = listen.tls
        pairs = [(tls.cert, tls.key), *((one.cert, one.key) for one in tls.certificates)] if tls is not None else []
        found |= {path: "private key" for cert, key in pairs if (path := key or cert)}
    secrets: list[tuple[Secret | None, str]] = [
        (config.health.token, "health token"),
        (config.state.database, "database address"),
        *((token.secret, "admin token") for token in config.admin.tokens),
        *((peer.token, "peer's token") for peer in config.peers.values()),
    ]
    for secret, use in secrets:
        if secret is not None and secret.file:
            found[secret.file] = use
    return found


async def _ask(plan: _Plan, timeout_s: float, wall: Callable[[], float]) -> tuple[tuple[NodeFacts, ...], Reply | None]:
    deadline_s = asyncio.get_running_loop().time() + timeout_s
    async with Asker(deadline_s, wall=wall) as asker, asyncio.TaskGroup() as group:
        nodes = group.create_task(together({item.node.name: _node(asker, plan, item) for item in plan.addresses}))
        logins = group.create_task(_logins(plan, timeout_s, wall))
        admin = group.create_task(_anonymous(asker, plan.config))
        found, sessions = await nodes, await logins
        with_sessions = (
            replace(node, replies={**node.replies, **sessions.get(name, {})}) for name, node in found.items()
        )
        return tuple(with_sessions), await admin


async def _node(asker: Asker, plan: _Plan, address: Address) -> NodeFacts:
    health, node = plan.config.health, address.node
    idle_s = float(plan.config.timeouts.upstream_idle) + _IDLE_SPARE_S
    async with asyncio.TaskGroup() as group:
        replies = group.create_task(
            together({name: asker.get(address, path, more) for name, (path, more) in _questions(plan).items()})
        )
        idle = group.create_task(asker.idle(address, health.path, plan.fields(), idle_s))
        certificate = group.create_task(asker.certificate(address))
    found = replies.result()
    return NodeFacts(
        name=node.name,
        authority=node.authority,
        capacity=node.capacity,
        is_tls=address.tls is not None,
        is_wanted=node.name not in plan.unwanted,
        replies=found,
        idle=idle.result(),
        certificate=certificate.result(),
        health=_health(plan, found["health"]),
        refuses_token=_refuses_token(plan, found["health"]),
    )


def _questions(plan: _Plan) -> dict[str, tuple[str, Mapping[str, str]]]:
    """Return what a node is asked: path and fields by the name of the answer."""
    config = plan.config
    found: dict[str, tuple[str, Mapping[str, str]]] = {"health": (config.health.path, plan.fields())}
    if config.versions.path:
        found["discovery"] = (config.versions.path, {})
    if plan.is_arvados:
        found["exported"] = ("/arvados/v1/config", {})
        found["metrics"] = ("/metrics", plan.fields())
        found["identified"] = ("/arvados/v1/users/current", {config.request_id.header: SENT_ID})
    return found


def _health(plan: _Plan, reply: Reply) -> str:
    expect = plan.config.health.expect
    if reply.fault:
        return reply.fault
    wanted = Expectation(statuses=expect.status, json=expect.json_, body=expect.body or "")
    result = judge(reply.status, reply.text.encode(), wanted, token_sent=bool(plan.token), duration_s=0.0)
    said = result.text.replace(plan.token, "***") if plan.token else result.text  # a node may repeat what it was sent
    return "" if result.ok else said


def _refuses_token(plan: _Plan, reply: Reply) -> bool:
    if reply.status in plan.config.health.expect.status:
        return False
    return reply.status in (401, 403) or (reply.status == 404 and "disabled" in reply.text)


async def _logins(plan: _Plan, timeout_s: float, wall: Callable[[], float]) -> dict[str, dict[str, Reply]]:
    """Begin a login at every node, then again with its own cookies and with those of the node before it."""
    if not plan.is_arvados or len(plan.addresses) < 2:
        return {}
    first = await _logins_with(plan, {item.node.name: "" for item in plan.addresses}, timeout_s / 3, wall)
    cookies = {name: _cookie(reply) for name, reply in first.items()}
    before = dict(zip(cookies, [*list(cookies.values())[-1:], *list(cookies.values())[:-1]], strict=True))
    own = await _logins_with(plan, _sendable(cookies), timeout_s / 3, wall)
    foreign = await _logins_with(plan, _sendable(before), timeout_s / 3, wall)
    return {name: {"login-own": own[name], "login-foreign": foreign[name]} for name in own.keys() & foreign.keys()}


def _sendable(cookies: Mapping[str, str]) -> dict[str, str]:
    return {name: cookie for name, cookie in cookies.items() if cookie}


async def _logins_with(
    plan: _Plan, cookies: Mapping[str, str], timeout_s: float, wall: Callable[[], float]
) -> dict[str, Reply]:
    """Ask the nodes that are named, each with its cookie or, for "", without any."""
    async with Asker(asyncio.get_running_loop().time() + timeout_s, wall=wall) as asker:
        return await together(
            {
                item.node.name: asker.get(item, _LOGIN, {"Cookie": cookie} if cookie else {})
                for item in plan.addresses
                if (cookie := cookies.get(item.node.name)) is not None
            }
        )


def _cookie(reply: Reply) -> str:
    return "; ".join(value.partition(";")[0] for value in reply.fields.get("set-cookie", ()))


async def _anonymous(asker: Asker, config: Config) -> Reply | None:
    """Return what the admin API answers over TCP to whoever has no token."""
    listen = config.admin.listen
    if listen is None or listen.is_unix:
        return None
    host = listen.rpartition(":")[0].strip("[]")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - read, not bound
    target = Target(name="admin", slot=0, host=host, port=listen.port)
    return await asker.get(Address(target, target.authority), "/v1/nodes", {})
