"""What a node needs of its DNS part, and a node without one."""

from typing import TYPE_CHECKING, Protocol

from apiserver.errors import SettingsError
from apiserver.settings import Settings
from dnsupdate.errors import DnsUpdateError
from dnsupdate.names import STRICT, Rules

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class Dns(Protocol):
    """Sends the records of compute nodes; runs beside the requests."""

    @property
    def rules(self) -> Rules:
        """Which names and addresses may be published; a ping with others is a 422."""
        ...

    def grant(self, epoch: int) -> None:
        """A balancer designated this node with that epoch."""
        ...

    def nudge(self) -> None:
        """A change was committed."""
        ...

    def mount(self, registry: "CollectorRegistry") -> None:
        """Show the numbers."""
        ...

    async def run(self) -> None:
        """Send until cancelled."""
        ...


class NoDns:
    """A node that marks changed hosts for senders elsewhere and sends nothing itself."""

    rules: Rules = STRICT

    def grant(self, epoch: int) -> None:
        """See `Dns`."""

    def nudge(self) -> None:
        """See `Dns`."""

    def mount(self, registry: "CollectorRegistry") -> None:
        """See `Dns`."""

    async def run(self) -> None:
        """See `Dns`."""


def read(settings: Settings) -> Dns:
    """Return the DNS part of a node; reads key files, so it is called before the loop starts.

    Raises:
        SettingsError: the `dns` section cannot be used.
    """
    if not settings.dns:
        return NoDns()
    from dnsupdate.companion import Companion  # a node without DNS does not load its libraries

    try:
        return Companion.read(settings.dns, owner=settings.cluster, database=settings.database_url)
    except DnsUpdateError as exc:
        raise SettingsError(str(exc)) from exc
