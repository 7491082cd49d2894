"""How DNS updates go: read now and then from the tables that all senders share, when the file has a `dns:` section."""

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from balancer.control.site import Site

logger = logging.getLogger(__name__)

LOOK_S = 10.0
UNKNOWN_S = 1.0  # there is no configuration yet
ANSWER_S = 5.0

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest answer. `fault`: why there is none."""

    asked_at: datetime
    fault: str = ""
    targets: tuple[Document, ...] = ()


class DnsState:
    """Keeps the newest answer; `run` asks. Nothing depends on it: the senders are processes of their own."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._seen: Seen | None = None

    def document(self) -> Document | None:
        """Return what the status says, None when DNS is not ours to update (or was not looked at yet)."""
        seen = self._seen
        if seen is None:
            return None
        return {"asked_at": seen.asked_at.isoformat(), "fault": seen.fault, "targets": list(seen.targets)}

    def causes(self) -> list[str]:
        """Return a sentence for each target in trouble."""
        targets = self._seen.targets if self._seen else ()
        return [f"DNS target {target['name']}: {target['error']}" for target in targets if target["error"]]

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            if not self._site.is_running:
                await asyncio.sleep(UNKNOWN_S)
                continue
            config = self._site.config
            self._seen = await self._look(config.dns, config.cluster) if config.dns else None
            await asyncio.sleep(LOOK_S)

    async def _look(self, section: Document, cluster: str) -> Seen:
        from dnsupdate.errors import DnsUpdateError  # only where it is used: it takes a third of a second to load

        now = self._site.parts.clock.now()
        try:
            async with asyncio.timeout(ANSWER_S):
                return Seen(now, targets=tuple(await _targets(section, cluster)))
        except (DnsUpdateError, TimeoutError) as exc:
            return Seen(now, fault=str(exc) or "the database does not answer")
        except Exception as exc:
            logger.exception("the state of DNS updates cannot be read", extra={"action": "dns-state"})
            return Seen(now, fault=f"cannot be read: {type(exc).__name__}")


async def _targets(section: Document, cluster: str) -> list[Document]:
    """Return the targets. Raises DnsUpdateError."""
    from dnsupdate.loader import load
    from dnsupdate.local import database
    from dnsupdate.overview import Overview
    from dnsupdate.store import Store

    settings = await asyncio.to_thread(load, section, owner=cluster)
    async with Store.open(await asyncio.to_thread(database, settings)) as store:
        return [_document(row) for row in await Overview(settings, store).targets()]


def _document(row: Document) -> Document:
    error = row["server_state"].get("error")
    return {
        "name": row["target"],
        "kind": row["kind"],
        "holder": row["holder"] if row["is_held"] else None,
        "epoch": row["epoch"],
        **{name: row[name] for name in ("records", "pending", "conflict", "failed", "held")},
        "error": str(error["text"]) if error else "",
    }
