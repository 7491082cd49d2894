"""Follows the nodes of unmodified API servers: their database's `nodes` table, or the node list of their API.

Everything is read each time and compared by `enqueue`, which writes only what changed; what was read carries the time
of its source, so that of two followers the one that read later wins.
"""

import json
import logging
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import asyncpg

from dnsupdate.connections import BROKEN, NO_ADDRESS, trouble
from dnsupdate.enqueue import enqueue, remove
from dnsupdate.errors import BadNameError, DnsUpdateError
from dnsupdate.host import Host
from dnsupdate.names import Rules, shown
from dnsupdate.queries import load
from dnsupdate.store import Store

if TYPE_CHECKING:
    import aiohttp

logger = logging.getLogger(__name__)
_OVERVIEW = load("overview")
_PAGE = 1000
_TIMEOUT_S = 30.0
_NODES = """SELECT uuid, hostname, domain, ip_address, slot_number, first_ping_at, properties::text AS properties,
 info::text AS info, clock_timestamp() AS now FROM nodes"""

Read = Callable[[], Awaitable["Reading"]]


class FollowError(DnsUpdateError):
    """The source does not answer, or not with nodes."""


@dataclass(frozen=True, slots=True)
class Reading:
    """All nodes of the source, true at `at`."""

    hosts: tuple[Host, ...]
    at: datetime


@dataclass(frozen=True, slots=True)
class Followed:
    """What one look changed."""

    changed: int
    removed: int
    refused: tuple[str, ...]


async def once(read: Read, store: Store, rules: Rules) -> Followed:
    """Read the source and enqueue what changed.

    Raises:
        FollowError: nothing was changed.
    """
    reading = await read()
    refused: list[str] = []
    changed = 0
    async with store.connection() as connection:
        for host in reading.hosts:
            try:
                async with connection.transaction():
                    changed += bool(await enqueue(connection, host, rules=rules, source_time=reading.at))
            except BadNameError as exc:
                refused.append(f"{shown(host.uuid)[1:-1]}: {exc}")
        known = {row["uuid"] for row in await connection.fetch(_OVERVIEW["followed"])}
        gone = known - {host.uuid for host in reading.hosts}
        async with connection.transaction():
            removed = await remove(connection, *gone, source_time=reading.at) if gone else ()
    return Followed(changed, len(removed), tuple(refused))


def from_database(dsn: str, connect: Callable[..., Awaitable[Any]] = asyncpg.connect) -> Read:
    """Return a reader of a `nodes` table."""

    async def read() -> Reading:
        try:
            connection = await connect(dsn, timeout=_TIMEOUT_S, command_timeout=_TIMEOUT_S)
            try:
                rows = await connection.fetch(_NODES)
                at = max((row["now"] for row in rows), default=None) or await connection.fetchval(_OVERVIEW["now"])
            finally:
                await connection.close(timeout=_TIMEOUT_S)
        except (*BROKEN, *NO_ADDRESS) as exc:
            raise FollowError(f"the nodes' database: {trouble(exc)}") from exc
        # The oldest moment of the statement: nothing that committed before it can be missing from it.
        first = min((row["now"] for row in rows), default=at)
        return Reading(tuple(_hosts(dict(row) for row in rows)), first)

    return read


def from_api(session: "aiohttp.ClientSession", root: str, token: str, store: Store) -> Read:
    """Return a reader of an API's node list; the time is our database's, taken before the list."""

    async def read() -> Reading:
        async with store.connection() as connection:
            at: datetime = await connection.fetchval(_OVERVIEW["now"])
        items: list[Mapping[str, Any]] = []
        while True:
            page = await _page(session, root, token, len(items))
            items += page["items"]
            if not page["items"] or len(items) >= page.get("items_available", 0):
                return Reading(tuple(_hosts(items)), at)

    return read


async def _page(session: "aiohttp.ClientSession", root: str, token: str, offset: int) -> Mapping[str, Any]:
    import aiohttp

    url = f"{root.rstrip('/')}/arvados/v1/nodes"
    query = {"limit": str(_PAGE), "offset": str(offset), "order": json.dumps(["uuid"])}
    try:
        async with session.get(url, params=query, headers={"Authorization": f"Bearer {token}"}) as response:
            if response.status != 200:
                raise FollowError(f"{url}: status {response.status}")
            page = await response.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
        raise FollowError(f"{url}: {type(exc).__name__}: {exc}") from exc
    if not _is_node_list(page):
        raise FollowError(f"{url}: not a node list")
    return page  # type: ignore[no-any-return]


def _is_node_list(page: Any) -> bool:
    if not isinstance(page, dict) or not isinstance(page.get("items"), list):
        return False
    are_nodes = all(isinstance(item, dict) and isinstance(item.get("uuid"), str) for item in page["items"])
    return are_nodes and type(page.get("items_available", 0)) is int


def client(ca_file: str | None) -> "aiohttp.ClientSession":
    """Return an HTTP client; `ca_file` for a certificate that the system does not know.

    Raises:
        FollowError: the file has no certificate.
    """
    import aiohttp

    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as exc:
        raise FollowError(f"dns.follow.ca_file: {ca_file}: {exc.strerror or exc}") from exc
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context), timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)
    )


def _hosts(rows: Iterable[Mapping[str, Any]]) -> Iterable[Host]:
    for row in rows:
        yield Host(
            uuid=str(row["uuid"]),
            hostname=row.get("hostname") or None,
            domain=row.get("domain") or "",
            ips=(row["ip_address"],) if row.get("ip_address") else (),
            slot=row.get("slot_number"),
            properties=_mapping(row.get("properties")),
            info=_mapping(row.get("info")),
            first_ping_at=str(row["first_ping_at"]) if row.get("first_ping_at") else None,
        )


def _mapping(value: Any) -> dict[str, Any]:
    found = json.loads(value) if isinstance(value, str) and value else value
    return dict(found) if isinstance(found, Mapping) else {}
