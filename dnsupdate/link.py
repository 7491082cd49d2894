"""The way to a target's server: one of its addresses, one connection, signed answers only."""

from collections.abc import Callable

from dnsupdate.diagnosis import Diagnosis
from dnsupdate.exchange import Channel, Peer, Reply
from dnsupdate.update import Update


class TroubleError(Exception):
    """The target as a whole cannot be worked on now."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__(str(diagnosis))
        self.diagnosis = diagnosis


class Link:
    """A connection that is made when it is needed. The addresses are those of one primary: `turn` tries the next."""

    def __init__(self, peers: tuple[Peer, ...], connect: Callable[[Peer], Channel]) -> None:
        self._peers, self._connect = peers, connect
        self._server = 0
        self._channel: Channel | None = None

    @property
    def server(self) -> str:
        """The address in use, as messages name it."""
        return self._peers[self._server % len(self._peers)].name

    def pick(self, peers: tuple[Peer, ...]) -> Peer:
        """Return the entry of another list of the same addresses that belongs to the address in use."""
        return peers[self._server % len(peers)]

    async def turn(self) -> None:
        """Close the connection and go to the next address."""
        self._server += 1
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    def _talk(self) -> Channel:
        if self._channel is None:
            self._channel = self._connect(self._peers[self._server % len(self._peers)])
        return self._channel

    async def update(self, *updates: Update) -> list[Reply]:
        """Send updates; in order."""
        return await self._talk().update(*updates) if updates else []

    async def ask(self, *questions: tuple[str, str]) -> list[Reply]:
        """Ask for (name, type); each reply has a signed answer.

        Raises:
            TroubleError: one has not.
        """
        replies = await self._talk().query(*questions) if questions else []
        for reply in replies:
            answer = reply.answer
            if answer is None or not answer.signed or answer.rcode not in ("NOERROR", "NXDOMAIN"):
                raise TroubleError(reply.diagnosis)
        return replies

    async def read(self, *questions: tuple[str, str]) -> list[tuple[str, ...]]:
        """Return the data at (name, type), as the server itself has it.

        Raises:
            TroubleError: there is no signed answer.
        """
        replies = await self.ask(*questions)
        return [
            () if reply.answer is None else reply.answer.data(rdtype)
            for reply, (_, rdtype) in zip(replies, questions, strict=True)
        ]
