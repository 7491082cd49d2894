"""Compute nodes: their pings, slots, host names, addresses, and what of it goes to DNS."""

import asyncio
import hmac
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from apiserver import audit
from apiserver.acting import system_viewer
from apiserver.controller import Controller, Draft
from apiserver.errors import InvalidError, NotFoundError, NotLoggedInError, UnavailableError
from apiserver.names import new_secret
from apiserver.operation import UUID, Call, Operation, Parameter, Reply
from apiserver.permissions import not_found
from apiserver.schema import NODES
from apiserver.sqltext import Binder
from apiserver.store.failures import UniqueError
from apiserver.store.pool import Lock, Store
from apiserver.times import parse_duration
from dnsupdate.enqueue import RECORD_SQL, enqueue, remove, states
from dnsupdate.errors import BadNameError
from dnsupdate.host import Host

PING_NUMBERS = ("total_cpu_cores", "total_ram_mb", "total_scratch_mb")
MAX_WAIT_S = 30.0
SLOT_TRIES = 4  # only an admin's own choice of a number can come in between
DNS_INPUTS = ("hostname", "ip_address", "domain", "slot_number", "info", "properties")
_USER_VIEW = frozenset({
    "uuid", "owner_uuid", "created_at", "modified_by_client_uuid", "modified_by_user_uuid", "modified_at", "hostname",
    "domain", "ip_address", "last_ping_at", "slot_number", "status", "job_uuid", "crunch_worker_state", "properties",
})  # fmt: skip
_FORMAT = re.compile(r"%%|%<slot_number>(0?[0-9]*)d|(%)")
_FREE_SLOT = """SELECT min(n) FROM generate_series(1, $1::integer) AS n
 WHERE NOT EXISTS (SELECT 1 FROM nodes WHERE slot_number = n)"""
_STATUS = """CASE WHEN t.last_ping_at IS NULL THEN
 CASE WHEN t.created_at > statement_timestamp() - interval '5 minutes' THEN 'pending' ELSE 'startup-fail' END
 WHEN t.last_ping_at < statement_timestamp() - interval '1 hour' THEN 'missing' ELSE 'running' END"""
_WORKER_STATE = """CASE WHEN t.slot_number IS NULL THEN 'down'
 WHEN t.info ->> 'slurm_state' IN ('alloc', 'comp', 'mix', 'drng') THEN 'busy'
 WHEN t.info ->> 'slurm_state' = 'idle' THEN 'idle' ELSE 'down' END"""
_SEEN = "SELECT epoch FROM designation_seen WHERE name = 'dns'"
_SEE = """INSERT INTO designation_seen AS seen (name, epoch) VALUES ('dns', $1)
 ON CONFLICT (name) DO UPDATE SET epoch = greatest(seen.epoch, excluded.epoch) RETURNING epoch"""


def hostname_of(template: str, slot: int) -> str:
    """Return the host name for a slot by a printf-like template: `compute%<slot_number>04d`.

    Raises:
        InvalidError: the template holds another percent sign.
    """

    def fill(match: re.Match[str]) -> str:
        if match[0] == "%%":
            return "%"
        if match[2]:
            raise InvalidError(f"AssignNodeHostname {template!r} is malformed: use %<slot_number>d")
        return f"{slot:{match[1]}d}"

    return _FORMAT.sub(fill, template)


class Nodes(Controller):
    """`nodes`. Admins make and change them; a compute node itself pings with its secret."""

    resource = NODES
    admin_only = True
    create_parameters = (Parameter("assign_slot", "boolean", default="false", description="Give it a slot at once"),)
    update_parameters = create_parameters

    def operations(self) -> Iterable[Operation]:
        """Return the standard operations, and ping."""
        for operation in super().operations():
            yield replace(operation, description="Slots and host names are given out by ping or assign_slot")
        numbers = (Parameter(name, "string") for name in ("instance_id", "local_ipv4", *PING_NUMBERS))
        wait = Parameter("wait_dns", "string", description="Answer when DNS has it, at most so long: 2s")
        ping = (UUID, Parameter("ping_secret", "string", True), *numbers, wait)
        yield Operation("nodes", "ping", "POST", "nodes/{uuid}/ping", self.ping, ping, "Node", write=True, public=True)

    def locks(self, parameters: dict[str, Any]) -> tuple[Lock, ...]:
        """Slots are given out one at a time."""
        return (Lock.SLOTS,) if parameters.get("assign_slot") else ()

    # -- reading

    def readable(self, call: Call, binder: Binder) -> list[str]:
        """Every active user may get a node."""
        del binder
        return [] if call.viewer.is_admin or call.viewer.is_active else ["false"]

    def also(self, call: Call, binder: Binder) -> list[str]:
        """Others than admins see nodes that are alive."""
        del binder
        return [] if call.viewer.is_admin else ["t.last_ping_at >= statement_timestamp() - interval '1 hour'"]

    def allowed(self, call: Call) -> frozenset[str] | None:
        """Info, with the secret, is for admins."""
        return None if call.viewer.is_admin else _USER_VIEW

    def computed(self, call: Call, binder: Binder) -> Mapping[str, Callable[[], str]]:
        """Return the SQL of states, by the database's clock."""
        servers = list(call.settings.nodes.compute_node_nameservers)
        return {
            "status": lambda: _STATUS,
            "crunch_worker_state": lambda: _WORKER_STATE,
            "nameservers": lambda: binder.bind(servers, "text[]"),
            "dns": lambda: RECORD_SQL,
        }

    async def finish(self, call: Call, item: dict[str, Any]) -> None:
        """Show the configured domain for a node without one of its own."""
        if "domain" in item and not item["domain"]:
            item["domain"] = call.settings.nodes.compute_node_domain or None
        if isinstance(item.get("dns"), str):
            item["dns"] = json.loads(item["dns"])

    # -- writing

    async def validate(self, call: Call, draft: Draft) -> None:
        """Keep a ping secret in info; check the address and the slot."""
        info = json.loads(draft.new.get("info") or "{}")
        if not info.get("ping_secret"):
            info["ping_secret"] = new_secret()
            draft.new["info"] = json.dumps(info)
        address = draft.new.get("ip_address")
        if address is not None and draft.changed("ip_address"):
            draft.new["ip_address"] = _address(address)
        slot = draft.new.get("slot_number")
        if slot is not None and slot < 1:
            raise InvalidError("slot_number must be positive")
        if call.flag("assign_slot") and slot is None:
            await self.assign_slot(call, draft)

    async def assign_slot(self, call: Call, draft: Draft) -> None:
        """Choose the smallest free slot and the host name that goes with it.

        Raises:
            InvalidError: all are taken.
        """
        rules = call.settings.nodes
        slot = await call.session.value(_FREE_SLOT, rules.max_compute_nodes)
        if slot is None:
            raise InvalidError("No available node slots")
        draft.new["slot_number"] = slot
        if draft.new.get("hostname") is None and rules.assign_node_hostname:
            draft.new["hostname"] = hostname_of(rules.assign_node_hostname, slot)

    async def write(self, call: Call, draft: Draft) -> None:
        """Try again with the next slot when another node got this one in the same moment."""
        chose_slot = draft.changed("slot_number") and draft.new.get("slot_number") is not None
        named = draft.changed("hostname")
        for attempt in range(SLOT_TRIES):
            try:
                async with call.session.savepoint():
                    await super().write(call, draft)
                return
            except UniqueError as exc:
                ours = call.flag("assign_slot") or call.flag("pinging")
                if "slot_number" not in exc.constraint or not chose_slot or not ours or attempt == SLOT_TRIES - 1:
                    raise
                if named:
                    draft.new["hostname"] = (draft.old or {}).get("hostname")
                await self.assign_slot(call, draft)

    async def stored(self, call: Call, draft: Draft) -> None:
        """Take the address from who had it before: the newest ping wins."""
        if draft.new["ip_address"] is not None and draft.changed("ip_address"):
            losers = await call.session.rows(
                "SELECT * FROM nodes WHERE ip_address = $1 AND uuid <> $2 ORDER BY id FOR NO KEY UPDATE",
                draft.new["ip_address"], draft.new["uuid"],
            )  # fmt: skip
            for row in losers:
                after = await call.session.row(
                    "UPDATE nodes SET ip_address = NULL, modified_at = clock_timestamp() WHERE uuid = $1 RETURNING *",
                    row["uuid"],
                )
                await audit.record(call, self.resource, row, after)

    async def store(self, call: Call, draft: Draft) -> dict[str, Any]:
        """Write node and log row, then mark the host dirty for DNS: all or nothing, and DNS last of all."""
        await self.write(call, draft)
        await self.stored(call, draft)
        await audit.record(call, self.resource, draft.old, draft.new)
        item = await self.shown_to_writer(call, draft.new["uuid"])
        if draft.changed(*DNS_INPUTS) or call.flag("pinging"):
            try:
                changed = await enqueue(call.session, _host(call, draft.new), rules=call.context.dns.rules)
            except BadNameError as exc:
                raise InvalidError(str(exc)) from exc
            if changed:
                call.after.append(call.context.dns.nudge)
        return item

    async def deleted(self, call: Call, draft: Draft) -> None:
        """Mark the host as gone."""
        await remove(call.session, draft.new["uuid"])
        call.after.append(call.context.dns.nudge)

    # -- ping

    async def ping(self, call: Call) -> Reply:
        """Note that a compute node lives; give it slot and name at its first ping.

        Raises:
            NotFoundError: there is no such node.
            NotLoggedInError: the secret is wrong. Cloud images halt on that text, so nothing else may say it.
            UnavailableError: the ping came over a balancer that is no longer the one that designates.
        """
        call.viewer = system_viewer(call.context.cluster)
        parameters = call.parameters
        await self._check_epoch(call)
        # Before the row: whoever gives out slots holds this lock first, so nobody waits for it with a row in hand.
        if await call.session.value("SELECT slot_number IS NULL FROM nodes WHERE uuid = $1", call.uuid):
            await call.session.lock(Lock.SLOTS)
        try:
            draft = await self.fetch(call, call.uuid, trashed=True)
        except NotFoundError:
            raise not_found(call.uuid) from None
        _check_secret(draft, parameters.get("ping_secret"))
        parameters["pinging"] = True
        self._take_facts(call, draft, await call.session.value("SELECT clock_timestamp()"))
        await self.validate(call, draft)
        if draft.new["slot_number"] is None:
            await self.assign_slot(call, draft)
        wait_s = _wait_s(parameters.get("wait_dns"))
        call.parameters = {"pinging": True}
        item = await self.store(call, draft)
        epoch = call.facts.designation_epoch
        if epoch is not None:
            call.after.append(lambda: call.context.dns.grant(epoch))
        return Reply(item, later=_when_published(item, wait_s) if wait_s else None)

    async def _check_epoch(self, call: Call) -> None:
        epoch = call.facts.designation_epoch
        if epoch is None:
            return
        seen = await call.session.value(_SEEN)
        if seen is None or seen < epoch:
            seen = await call.session.value(_SEE, epoch)
        if epoch < seen:
            raise UnavailableError(f"this ping came with designation epoch {epoch}, epoch {seen} is in force")

    def _take_facts(self, call: Call, draft: Draft, now: Any) -> None:
        new, parameters = draft.new, call.parameters
        new["last_ping_at"] = now
        if new["ip_address"] is None:
            new["ip_address"] = _address(parameters.get("local_ipv4") or call.facts.client)
            new["first_ping_at"] = now
        info = json.loads(new["info"])
        instance = parameters.get("instance_id")
        if instance is not None:
            if info.setdefault("ec2_instance_id", str(instance)) != str(instance):
                raise InvalidError(f"instance_id {str(instance)[:60]} differs from the one that pinged before")
            new["info"] = json.dumps(info)
        properties = json.loads(new["properties"])
        for name in PING_NUMBERS:
            properties.pop(name, None)
            if parameters.get(name) is not None:
                properties[name] = _whole(name, parameters[name])
        # Compared as values: the database spells JSON its own way.
        if properties != json.loads(new["properties"]):
            new["properties"] = json.dumps(properties)
        if info == json.loads((draft.old or {}).get("info") or "{}"):
            new["info"] = (draft.old or {})["info"]


def _check_secret(draft: Draft, given: Any) -> None:
    secret = json.loads(draft.new["info"]).get("ping_secret")
    if not isinstance(secret, str) or not hmac.compare_digest(secret.encode(), str(given).encode()):
        raise NotLoggedInError("Incorrect ping_secret")


def _wait_s(text: Any) -> float:
    if text is None:
        return 0.0
    try:
        seconds = parse_duration(str(text)).total_seconds()
    except ValueError as exc:
        raise InvalidError(f"wait_dns {str(text)[:40]!r} is no duration: 2s") from exc
    if not 0 <= seconds <= MAX_WAIT_S:
        raise InvalidError(f"wait_dns must be at most {MAX_WAIT_S:g}s")
    return seconds


def _when_published(item: dict[str, Any], wait_s: float) -> Callable[[Store], Awaitable[Any]]:
    """Return what waits until DNS has a node's records, or has said why not, or the time is over."""

    async def later(store: Store) -> dict[str, Any]:
        pause_s = 0.02
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while True:
                    async with store.session() as session:  # none is held while waiting
                        found = (await states(session, [item["uuid"]])).get(item["uuid"])
                    item["dns"] = found.as_json() if found is not None else None
                    if found is None or found.state != "pending":
                        break
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, 0.5)
        return item

    return later


def _whole(name: str, value: Any) -> int:
    text = str(value).strip()
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise InvalidError(f"{name} must be a number, not {text[:40]!r}")
    return int(text)


def _address(text: Any) -> str:
    try:
        return str(ip_address(str(text).strip()))
    except ValueError as exc:
        raise InvalidError(f"ip_address {str(text)[:60]!r} is no IP address") from exc


def _host(call: Call, row: Mapping[str, Any]) -> Host:
    """Return what DNS templates see of a node."""
    first = row["first_ping_at"]
    return Host(
        uuid=row["uuid"],
        hostname=row["hostname"],
        domain=row["domain"] or call.settings.nodes.compute_node_domain,
        ips=(row["ip_address"],) if row["ip_address"] else (),
        slot=row["slot_number"],
        properties=json.loads(row["properties"]),
        info=json.loads(row["info"]),
        first_ping_at=first.isoformat() if first else None,
    )
