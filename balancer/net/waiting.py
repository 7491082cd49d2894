"""Exchanges that wait: parked (paused, or no node serves) and queued (all nodes full). FIFO over all workers."""

import fcntl
import os
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING

from balancer.core import parking
from balancer.core.exchange import Cause, State
from balancer.net.poller import READ
from balancer.scoreboard import (
    H_RELEASE_AT_NS,
    H_RELEASE_TOKENS_MICRO,
    LOCK_RELEASE,
    ROW_CELLS,
    W_BEAT_NS,
    W_PARKED,
    W_PARKED_BYTES,
    W_PARKED_HEAD,
    W_QUEUED,
    W_QUEUED_HEAD,
    WORKERS,
)

if TYPE_CHECKING:
    from balancer.net.exchange import Exchange
    from balancer.net.plane import Plane

LOOK_NS = 20_000_000  # a waiting head is looked at this often, besides wake-ups
HELD_NS = 1_000_000  # the bucket is asked again after this at the earliest
YIELD_NS = 5_000_000  # a worker with an older waiter elsewhere lets that one go first for this long


class Line:
    """Exchanges in order of their tickets (CLOCK_MONOTONIC ns), and what the scoreboard says of them."""

    def __init__(self, plane: "Plane", count_cell: int, head_cell: int, state: State) -> None:
        self.plane = plane
        self.exchanges: OrderedDict[Exchange, None] = OrderedDict()
        self.state = state
        self._row = WORKERS + plane.slot * ROW_CELLS
        self._count_cell, self._head_cell = count_cell, head_cell
        self._again = False

    def _join(self, exchange: "Exchange") -> None:
        now = self.plane.reactor.now
        client = exchange.client
        exchange.move(self.state)
        if not exchange.ticket:
            exchange.ticket = now
            exchange.waited_since = now
            self.exchanges[exchange] = None
        else:  # it waited before, so its place is in front
            self.exchanges[exchange] = None
            self._sort()
        client.hold_input()
        self._publish()
        self.plane.reactor.want_turn(LOOK_NS)

    def _sort(self) -> None:
        in_order = sorted(self.exchanges, key=lambda waiting: waiting.ticket)
        self.exchanges = OrderedDict.fromkeys(in_order)

    def leave(self, exchange: "Exchange") -> bool:
        """Take an exchange out; False: it is not here."""
        if exchange not in self.exchanges:
            return False
        del self.exchanges[exchange]
        exchange.waited_ns += self.plane.reactor.now - exchange.waited_since
        exchange.waited_since = self.plane.reactor.now
        self._publish()
        return True

    def _publish(self) -> None:
        cells = self.plane.cells
        head = next(iter(self.exchanges), None)
        cells[self._row + self._count_cell] = len(self.exchanges)
        cells[self._row + self._head_cell] = head.ticket if head is not None else 0
        self.plane.waiting = bool(self.plane.lot.exchanges or self.plane.queue.exchanges)

    def older_elsewhere(self, ticket: int) -> int | None:
        """Return the slot of another live worker whose head is older than `ticket`."""
        cells, head = self.plane.cells, self._head_cell
        rows = ((slot, WORKERS + slot * ROW_CELLS) for slot in range(self.plane.claims.rows) if slot != self.plane.slot)
        heads = ((slot, cells[row + head], cells[row + W_BEAT_NS]) for slot, row in rows)
        return parking.older_head(ticket, heads, self.plane.reactor.now)

    def resume(self, exchange: "Exchange") -> None:
        """Let an exchange go on to choose a node."""
        self.leave(exchange)
        exchange.client.interest(READ)
        exchange.client.deadline = self.plane.reactor.now + exchange.site.connect_ns
        exchange.start()


class Queue(Line):
    """All nodes that could take it are full."""

    def __init__(self, plane: "Plane") -> None:
        super().__init__(plane, W_QUEUED, W_QUEUED_HEAD, State.QUEUED)
        self._yielded_until = 0

    def enqueue(self, exchange: "Exchange") -> None:
        """Wait for room, or be refused."""
        rules = exchange.site.snapshot.queue
        if self.plane.claims.total(W_QUEUED) >= rules.max:
            exchange.answer(Cause.QUEUE_FULL)
            return
        first = not exchange.ticket
        self._join(exchange)
        if first:
            exchange.why = parking.Why.FULL
        exchange.client.deadline = exchange.waited_since + int(rules.timeout_s * 1e9)
        self.wake_soon()

    def expired(self, exchange: "Exchange") -> None:
        """Waited too long."""
        self.leave(exchange)
        exchange.answer(Cause.QUEUE_TIMEOUT)

    def wake_soon(self) -> None:
        """Look at the line at the end of this turn."""
        if not self._again:
            self._again = True
            self.plane.reactor.again.append(self.look)

    def look(self) -> None:
        """Let those go for whom there is room, oldest first."""
        self._again = False
        now = self.plane.reactor.now
        for exchange in list(self.exchanges):
            older = self.older_elsewhere(exchange.ticket)
            if older is not None and now >= self._yielded_until + YIELD_NS:
                # The other one gets the first try; it may want a node that has no room, so not for ever.
                self._yielded_until = now + YIELD_NS
            if older is not None and now < self._yielded_until:
                self.plane.claims.wake(older)
                self.plane.reactor.want_turn(1_000_000)
                return
            if not self._try(exchange):
                break
        if self.exchanges:
            self.plane.reactor.want_turn(LOOK_NS)

    def _try(self, exchange: "Exchange") -> bool:
        """Give the head a chance; False: it waits on."""
        plane, target = self.plane, exchange.target
        now = plane.reactor.now
        if exchange.site is not plane.site:
            plane.renew(exchange)
            target = exchange.target
        if exchange.site.paused(now) and target.park:
            self.leave(exchange)
            plane.lot.park(exchange, parking.Why.PAUSED)
            return True
        if not target.serving:
            self.leave(exchange)
            exchange.start()
            return True
        if not any(not node.node.capacity or plane.claims.load(node) < node.node.capacity for node in target.serving):
            return False
        self.resume(exchange)
        return exchange not in self.exchanges


class ParkingLot(Line):
    """Paused, or no node can serve. Nothing but what came with the head is read."""

    def __init__(self, plane: "Plane") -> None:
        super().__init__(plane, W_PARKED, W_PARKED_HEAD, State.PARKED)
        self.by_client: Counter[str] = Counter()
        self._bytes = WORKERS + plane.slot * ROW_CELLS + W_PARKED_BYTES

    def park(self, exchange: "Exchange", why: str) -> None:
        """Wait, or be refused."""
        plane, client = self.plane, exchange.client
        rules = exchange.site.snapshot.park
        size = len(exchange.head) + len(exchange.body) + len(client.data)
        address = exchange.client_address or client.peer
        total = plane.claims.total
        now = parking.Parked(total(W_PARKED), total(W_PARKED_BYTES), self.by_client[address])
        trusted = client.is_trusted(exchange.site)
        if parking.admit(rules, now, size, client_trusted=trusted) is not None:
            exchange.why = why
            exchange.answer(Cause.PARK_FULL)
            return
        self.by_client[address] += 1
        plane.cells[self._bytes] += size
        exchange.parked_as = (address, size)
        exchange.why = why
        self._join(exchange)
        client.deadline = exchange.started_at + int(rules.timeout_s * 1e9)

    def leave(self, exchange: "Exchange") -> bool:
        """See Line."""
        if not super().leave(exchange):
            return False
        address, size = exchange.parked_as
        self.plane.cells[self._bytes] -= size
        self.by_client[address] -= 1
        if self.by_client[address] <= 0:
            del self.by_client[address]
        return True

    def expired(self, exchange: "Exchange") -> None:
        """Waited too long."""
        self.leave(exchange)
        exchange.answer(Cause.PARK_TIMEOUT)

    def look(self) -> None:
        """Release those that can go, oldest first and at the rate that is allowed."""
        self._again = False
        plane = self.plane
        for exchange in list(self.exchanges):
            if exchange.site is not plane.site:
                plane.renew(exchange)
            if exchange.target.park and plane.site.paused(plane.reactor.now):
                continue
            if not exchange.target.serving:
                exchange.why = parking.Why.ALL_DOWN
                continue
            older = self.older_elsewhere(exchange.ticket)
            if older is not None and self._could_go(older):
                plane.claims.wake(older)
                plane.reactor.want_turn(2_000_000)
                return
            wait_ns = self._token()
            if wait_ns:
                plane.reactor.want_turn(wait_ns)
                return
            self.resume(exchange)
        if self.exchanges:
            plane.reactor.want_turn(LOOK_NS)
        else:
            plane.claims.wake_waiting(W_PARKED)

    def _could_go(self, slot: int) -> bool:
        """Whether an older head elsewhere is one that waits for the same thing: it has not been passed over lately."""
        head = self.plane.cells[WORKERS + slot * ROW_CELLS + W_PARKED_HEAD]
        passed = self.plane.passed_over
        first_seen = passed.setdefault(head, self.plane.reactor.now)
        if len(passed) > 1000:
            passed.clear()
        return self.plane.reactor.now - first_seen < 200_000_000

    def _token(self) -> int:
        """Take a token of the bucket that all workers share; return 0, or nanoseconds until there may be one."""
        plane = self.plane
        rate = plane.site.snapshot.park.release_per_s
        if rate <= 0:
            return 0
        fd, cells = plane.board.fd, plane.cells
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, LOCK_RELEASE, os.SEEK_SET)
        except OSError:  # another worker has it
            return HELD_NS
        try:
            bucket = parking.Bucket(cells[H_RELEASE_TOKENS_MICRO], cells[H_RELEASE_AT_NS])
            granted, bucket = parking.take(bucket, plane.reactor.now, rate)
            cells[H_RELEASE_TOKENS_MICRO], cells[H_RELEASE_AT_NS] = bucket.tokens_micro, bucket.at_ns
        finally:
            fcntl.lockf(fd, fcntl.LOCK_UN, 1, LOCK_RELEASE, os.SEEK_SET)
        return 0 if granted else max(HELD_NS, parking.next_token_ns(bucket, rate))
