"""The data plane of one worker: what connections and exchanges share, and the housekeeping between turns."""

import logging
import os
import socket
from _socket import socket as PlainSocket  # noqa: N812 - the C type under socket.socket: half the cost to make
from collections.abc import Callable
from functools import partial
from typing import Any

from balancer.core import parking
from balancer.core.exchange import Cause
from balancer.core.retry import Budget
from balancer.model import Admin, Listener, Node, Outcome, Snapshot
from balancer.net.attempts import Attempts
from balancer.net.claims import Claims
from balancer.net.clock import WallClock
from balancer.net.downstream import Downstream
from balancer.net.exchange import Exchange
from balancer.net.listener import Acceptor, Gate
from balancer.net.logwriter import LogWriter
from balancer.net.nodes import NodeState, observe
from balancer.net.pipes import Pipes
from balancer.net.poller import READ
from balancer.net.reactor import HEARTBEAT_NS, Reactor
from balancer.net.site import Site
from balancer.net.tls import ListenerContexts, TlsClient, node_context
from balancer.net.tunnel import Tunnels
from balancer.net.turnedaway import TurnedAway
from balancer.net.waiting import Line, ParkingLot, Queue
from balancer.observe.accesslog import Formatter, make_formatter
from balancer.scoreboard import (
    CODES,
    L_CELLS,
    L_DURATION,
    L_REQUESTS,
    METHODS,
    OUTCOME_CELLS,
    REJECT_REASONS,
    ROW_CELLS,
    STATE_LISTENING,
    STATE_STOPPING,
    W_ACCEPTED,
    W_BEAT_NS,
    W_CONNECTIONS,
    W_CONNECTIONS_TOTAL,
    W_GENERATION,
    W_LISTENERS,
    W_LOG_DROPPED,
    W_LOG_LINES,
    W_LOOP_LAG_MAX_NS,
    W_LOOPS,
    W_OUT_NODE,
    W_OVERHEAD_HISTOGRAM,
    W_PAUSED_GENERATION,
    W_QUEUE_HISTOGRAM,
    W_REJECTED,
    W_REQUEST_BYTES,
    W_RESPONSE_BYTES,
    W_RETRIES_BUDGETED,
    W_RETRIES_RECOVERED,
    W_STATE,
    WORKERS,
    Scoreboard,
)

logger = logging.getLogger(__name__)

SURPLUS = 64  # connections over the limit that are told so; those over these are just closed
HEALTH_NS = 10_000_000  # control's verdicts are looked at this often, besides wake-ups
LAST_WORDS_NS = 500_000_000  # before the deadline of a stop those that still wait are told
METHOD_INDEX = {method.encode(): index for index, method in enumerate(METHODS)}
CODE_INDEX = {code: index for index, code in enumerate(CODES)}
FEW_NODES = 4  # have their tallies written each turn
TALLIES = 16  # of each of more nodes are worth a write
TALLIES_NS = 50_000_000  # longer than this none waits
_NODE = Outcome.NODE  # looking a member up in its enum costs 90 ns, hashing one 150
OTHER_METHOD, OTHER_CODE = len(METHODS) - 1, len(CODES) - 1


class Plane:
    """All connections, nodes and waiting lines of one worker, on one reactor."""

    def __init__(self, reactor: Reactor, board: Scoreboard, slot: int, wakes: list[int], log_fd: int = 1) -> None:
        self.reactor = reactor
        self.board = board
        self.cells: memoryview[int] = board.cells
        self.slot = slot
        self.row = WORKERS + slot * ROW_CELLS
        self.claims = Claims(board, slot, wakes)
        self.nodes: dict[int, NodeState] = {}
        self.clients: set[Downstream] = set()
        self.pipes = Pipes()
        self.clock = WallClock()
        self.log = LogWriter(log_fd)
        self.formatter: Formatter | None = None
        self.gates: dict[int, Gate] = {}
        self.sockets: dict[int, list[Acceptor]] = {}
        self.site = Site(Snapshot(0, ""), {}, self.claims)
        self.waiting = False
        self.lot = ParkingLot(self)
        self.queue = Queue(self)
        self.tunnels = Tunnels(self)
        self._budget = Budget()
        self.passed_over: dict[int, int] = {}
        self.closing = False
        self.final = False  # and the whole balancer with us
        self.stop_at = 0
        self.tunnels_end_at = 0
        self.tell_event: Callable[[dict[str, Any]], None] = lambda _event: None
        self.accepted = 0
        self.accepted_cell = self.row + W_ACCEPTED
        self._answered_cell = self.row + W_OUT_NODE
        self._connections_cell = self.row + W_CONNECTIONS
        self._next_health = 0
        self._next_beat = 0
        self._health_dirty = True
        # Tallies of this turn.
        self._request_bytes = self._response_bytes = self._connections = 0
        self.tallied: list[NodeState] = []  # nodes with tallies
        self._ended = self._tallied_at = 0  # exchanges since, and when, those of nodes were written last
        self._overheads: list[int] = []
        self._queue_times: list[int] = []
        reactor.turn_ends.append(self.turn_end)
        reactor.sweeps.append(self.sweep)

    # --- the ledger ---------------------------------------------------------------------------------------------

    def accept(self) -> None:
        """Book an exchange as accepted, before anything else is done with it."""
        self.cells[self.accepted_cell] += 1
        self.accepted += 1

    def exchange_ended(self, exchange: Attempts) -> None:
        """Book its outcome: tallies and log line first, the outcome last."""
        now = self.reactor.now
        duration = now - exchange.started_at
        gate = exchange.client.gate
        key = (exchange.method, exchange.status)
        codes = gate.codes
        codes[key] = codes.get(key, 0) + 1
        gate.durations.append(duration)
        self._ended += 1
        waited_ns = exchange.waited_ns
        if waited_ns:
            self._queue_times.append(waited_ns)
        if exchange.attempts > 1 and exchange.status and exchange.cause is Cause.OK:
            self.count(W_RETRIES_RECOVERED)
        done_at = exchange.done_at
        if done_at:
            # Time in the balancer itself: all but waiting in line and what the node took.
            self._overheads.append(duration - waited_ns - done_at + exchange.chosen_at)
        self._request_bytes += exchange.request_bytes
        self._response_bytes += exchange.response_bytes
        if self.formatter is not None:
            self.log.add(self.formatter(exchange, self.clock, now))
        if exchange.outcome is _NODE:
            self.cells[self._answered_cell] += 1
        else:
            self.cells[self.row + OUTCOME_CELLS[exchange.outcome]] += 1

    def count(self, cell: int) -> None:
        """Add one to a cell of our row."""
        self.cells[self.row + cell] += 1

    def may_retry(self) -> bool:
        """Whether the budget that all workers share has a retry left; book it as `W_RETRIES_BUDGETED`.

        Workers that ask at the same moment may pass it by one each.
        """
        total = self.claims.total
        return self._budget.allows(self.reactor.now / 1e9, total(W_ACCEPTED), total(W_RETRIES_BUDGETED))

    # --- connections --------------------------------------------------------------------------------------------

    def accepted_connection(self, gate: Gate, fd: int, address: Any) -> None:
        """Take a new connection."""
        refused_for = None
        most = self.site.snapshot.limits.connections
        if len(self.clients) >= most:  # the kernel's queue would only hide that we are full
            if len(self.clients) >= most + SURPLUS:
                os.close(fd)
                self.count(W_REJECTED + REJECT_REASONS.index("connections_full"))
                return
            refused_for = Cause.CONNECTIONS_FULL
        peer, port = (address[0], address[1]) if isinstance(address, tuple) else ("127.0.0.1", 0)
        if peer.startswith("::ffff:"):
            peer = peer[7:]
        contexts = self.site.tls.get(gate.slot)
        client: Downstream
        family = gate.family
        if contexts is not None or gate.must_send_proxy(peer):
            full = socket.socket(family, socket.SOCK_STREAM, 0, fileno=fd)
            full.setblocking(False)
            client = TlsClient(self, full, gate, (peer, port), contexts, refused_for)
        else:
            sock = PlainSocket(family, socket.SOCK_STREAM, 0, fd)
            sock.setblocking(False)
            client = Downstream(self, sock, fd, gate, peer, port)
            if refused_for is not None:
                client = TurnedAway(client, refused_for)
        self._connections += 1
        self.clients.add(client)
        self.cells[self._connections_cell] = len(self.clients) + len(self.tunnels.open_ones)
        client.mask = 1
        self.reactor.watch(client.fd, 1, client)

    def turn_away(self, client: Downstream, cause: Cause) -> None:
        """Answer whatever comes on a connection with a refusal."""
        self.clients.discard(client)
        refused = TurnedAway(client, cause)
        self.clients.add(refused)
        self.reactor.handlers[client.fd] = refused
        refused.interest(READ)

    def connection_closed(self, client: Downstream) -> None:
        """A client connection is closing."""
        self.clients.discard(client)
        self.cells[self._connections_cell] = len(self.clients) + len(self.tunnels.open_ones)

    def connection_became_tunnel(self, client: Downstream) -> None:
        """A client connection is a tunnel's now."""
        self.clients.discard(client)

    def tunnel_ended(self) -> None:
        """A tunnel closed its client connection."""
        self.cells[self._connections_cell] = len(self.clients) + len(self.tunnels.open_ones)

    # --- snapshots and listeners -----------------------------------------------------------------------------------

    def apply(self, snapshot: Snapshot, pems: list[int]) -> None:
        """Run on `snapshot` from now on; exchanges under way keep theirs.

        Raises BalanceError, ValueError, LookupError or OSError (ssl.SSLError is one) with nothing changed when it
        cannot be used. `pems` stay the caller's.
        """
        nodes = {node.slot: self._node_state(node) for node in snapshot.nodes}
        contexts = {node.slot: node_context(node.tls, pems) for node in snapshot.nodes if node.tls is not None}
        site = Site(snapshot, nodes, self.claims)
        site.tls = {
            listener.slot: ListenerContexts(listener.tls, pems) for listener in snapshot.listeners if listener.tls
        }
        formatter = make_formatter(snapshot.access_log)
        # Nothing below fails.
        old_site, old_nodes = self.site, self.nodes
        self.site, self.nodes, self.formatter = site, nodes, formatter
        for node in snapshot.nodes:
            self._update_node(nodes[node.slot], node)
            nodes[node.slot].tls = contexts.get(node.slot)
        for slot, state in old_nodes.items():
            if nodes.get(slot) is not state:
                state.pool_open = False
                state.close_idle()
        self._set_tunnel_ends()
        self._budget.follow(snapshot.retry)
        if snapshot.access_log.path != old_site.snapshot.access_log.path:
            self.log.open_path(snapshot.access_log.path)
        self._apply_listeners(snapshot)
        self.health_changed()
        self._look_at_health()
        self.cells[self.row + W_GENERATION] = snapshot.generation
        if snapshot.pause is not None:
            self.cells[self.row + W_PAUSED_GENERATION] = snapshot.generation
        self.cells[self.row + W_STATE] = STATE_STOPPING if self.closing else STATE_LISTENING

    def _node_state(self, node: Node) -> NodeState:
        old = self.nodes.get(node.slot)
        if old is not None and (old.node.name, old.node.host, old.node.port, old.node.unix_path) == (
            node.name,
            node.host,
            node.port,
            node.unix_path,
        ):
            return old
        return NodeState(node, self.cells, self.slot)

    def _update_node(self, state: NodeState, node: Node) -> None:
        tls_changed = state.node.tls != node.tls
        state.node = node
        state.pool_open = node.admin is Admin.ENABLED
        if not state.pool_open or tls_changed:
            state.close_idle()

    def _set_tunnel_ends(self) -> None:
        """Tunnels of nodes that are wanted empty, and all of them in a pause, end after their grace."""
        now = self.reactor.now
        grace_ns = int(self.site.snapshot.drain.tunnel_grace_s * 1e9)
        for state in self.nodes.values():
            if state.node.admin is Admin.ENABLED:
                state.tunnels_end_at = 0
            elif not state.tunnels_end_at:
                state.tunnels_end_at = now + grace_ns
        if not self.site.paused(now):
            self.tunnels_end_at = self.tunnels_end_at if self.closing else 0
        elif not self.tunnels_end_at:
            self.tunnels_end_at = now + grace_ns

    def add_sockets(self, slot: int, sockets: list[socket.socket]) -> None:
        """Listen on more sockets for a listener slot, once the snapshot has it."""
        for sock in sockets:
            gate = self.gates.setdefault(slot, self._gate(Listener(slot, "")))
            self.sockets.setdefault(slot, []).append(Acceptor(self, sock, gate))
        self._apply_listeners(self.site.snapshot)

    def _gate(self, listener: Listener) -> Gate:
        return Gate(listener, self.row + W_LISTENERS + listener.slot * L_CELLS)

    def drop_sockets(self, slot: int) -> None:
        """Accept what waits on a listener slot, then close its sockets."""
        for acceptor in self.sockets.pop(slot, []):
            acceptor.close()

    def _apply_listeners(self, snapshot: Snapshot) -> None:
        wanted = {listener.slot: listener for listener in snapshot.listeners}
        for slot, listener in wanted.items():
            gate = self.gates.get(slot)
            if gate is None or gate.listener != listener:
                self.gates[slot] = self._gate(listener)
        for slot, acceptors in self.sockets.items():
            for acceptor in acceptors:
                acceptor.gate = self.gates[slot]
                if slot in wanted and not self.closing:
                    acceptor.listen()
                else:
                    acceptor.pause()

    def renew(self, exchange: Exchange) -> None:
        """Let an exchange that waits go on with the present snapshot: it may wait for what that changes."""
        site = self.site
        exchange.site = site
        by_name = {target.route.name: target for target in site.targets if target.route is not None}
        route = exchange.target.route
        old = exchange.target
        exchange.target = by_name.get(route.name, site.everything) if route is not None else site.everything
        if old.designation != exchange.target.designation and old.designation:
            exchange.head = exchange.head.replace(b"\r\n" + old.designation, b"\r\n" + exchange.target.designation, 1)

    # --- health ---------------------------------------------------------------------------------------------------

    def health_changed(self) -> None:
        """Look at who serves at the end of this turn."""
        self._health_dirty = True

    def _look_at_health(self) -> None:
        told, self._health_dirty = self._health_dirty, False
        self._next_health = self.reactor.now + HEALTH_NS
        if self.site.refresh(self.reactor.now, told=told):
            for state in self.nodes.values():
                if not self.site.serves(state):
                    state.close_idle()

    # --- housekeeping ---------------------------------------------------------------------------------------------

    def turn_end(self) -> None:
        """Write tallies, look at health and at who waits."""
        now = self.reactor.now
        if self._health_dirty or now >= self._next_health:
            self._look_at_health()
        if self.waiting:
            if self.lot.exchanges:
                self.lot.look()
            if self.queue.exchanges:
                self.queue.look()
        if self._ended or self._connections:
            self._flush_tallies()
        if self.log.lines:
            self._write_log()
        if now >= self._next_beat:
            self._beat(now)

    def _flush_tallies(self) -> None:
        cells, row = self.cells, self.row
        nodes, now = self.tallied, self.reactor.now
        # Few at each of many nodes wait for more to come (or for `sweep`): 64 nodes cost as much as 2.
        if len(nodes) <= FEW_NODES or self._ended >= TALLIES * len(nodes) or now - self._tallied_at >= TALLIES_NS:
            for node in nodes:
                node.flush_tallies()
            nodes.clear()
            self._ended, self._tallied_at = 0, now
        for gate in self.gates.values():
            if gate.durations:
                observe(cells, gate.cell + L_DURATION, gate.durations)
                gate.durations.clear()
                for (method, status), count in gate.codes.items():
                    index = METHOD_INDEX.get(method, OTHER_METHOD) * len(CODES) + CODE_INDEX.get(status, OTHER_CODE)
                    cells[gate.cell + L_REQUESTS + index] += count
                gate.codes.clear()
        if self._overheads:
            observe(cells, row + W_OVERHEAD_HISTOGRAM, self._overheads)
            self._overheads.clear()
        if self._queue_times:
            observe(cells, row + W_QUEUE_HISTOGRAM, self._queue_times)
            self._queue_times.clear()
        if self._request_bytes or self._response_bytes:
            cells[row + W_REQUEST_BYTES] += self._request_bytes
            cells[row + W_RESPONSE_BYTES] += self._response_bytes
            self._request_bytes = self._response_bytes = 0
        if self._connections:
            cells[row + W_CONNECTIONS_TOTAL] += self._connections
            self._connections = 0

    def _write_log(self) -> None:
        wait_ns = self.log.write(self.reactor.now)
        if wait_ns:
            self.reactor.want_turn(wait_ns)

    def _beat(self, now: int) -> None:
        self._next_beat = now + HEARTBEAT_NS
        cells, row, reactor = self.cells, self.row, self.reactor
        cells[row + W_BEAT_NS] = now
        cells[row + W_LOOPS] += reactor.turns
        reactor.turns = 0
        cells[row + W_LOOP_LAG_MAX_NS] = max(cells[row + W_LOOP_LAG_MAX_NS], reactor.lag_max_ns)
        self.clock.adjust()
        self._budget.sample(now / 1e9, self.claims.total(W_ACCEPTED), self.claims.total(W_RETRIES_BUDGETED))
        cells[row + W_LOG_LINES] += self.log.take_written()
        dropped = self.log.take_dropped()
        if dropped:
            cells[row + W_LOG_DROPPED] += dropped
            self.tell_event({"type": "event", "kind": "log-full", "dropped": dropped})

    def sweep(self) -> None:
        """Deadlines. A pass over 5 000 idle connections is 0.2 ms four times a second."""
        now = self.reactor.now
        late = [client for client in self.clients if client.deadline <= now]
        for client in late:
            self._guarded(client, client.expired)
        for client in [client for client in self.clients if client.body_began_at]:
            self._guarded(client, partial(client.check_rate, now))
        idle_ns = int(self.site.snapshot.timeouts.upstream_idle_s * 1e9)
        for node in self.nodes.values():
            if node.pool and node.pool[0].idle_since <= now - idle_ns:
                node.close_idle(now - idle_ns)
            node.flush_tallies()
        self.tunnels.sweep(now)
        if self.closing:
            self._check_stopped(now)

    @staticmethod
    def _guarded(client: Downstream, act: Callable[[], None]) -> None:
        """Do something to one client; when it fails inside, that client pays and not all."""
        try:
            act()
        except Exception as error:  # noqa: BLE001 - top of a unit of work, as in the reactor's turn
            client.broken(error)

    # --- waiting --------------------------------------------------------------------------------------------------

    def retry_after_s(self, cause: Cause) -> int:
        """Return Retry-After for a 503."""
        site, now = self.site, self.reactor.now
        rate = site.snapshot.park.release_per_s
        left_s = max(0.0, (site.pause_until - now) / 1e9) if site.pause_until else 0.0
        why = parking.Why.FULL
        if site.paused(now):
            why = parking.Why.PAUSED
        elif cause in (Cause.NO_NODE, Cause.PARK_FULL, Cause.PARK_TIMEOUT):
            why = parking.Why.ALL_DOWN
        return parking.retry_after_s(why, len(self.lot.exchanges), rate, left_s, site.snapshot.verdicts.interval_s)

    # --- the end --------------------------------------------------------------------------------------------------

    def stop(self, deadline_s: float, *, final: bool) -> None:
        """Accept what waits, stop listening, end what is idle, finish the rest; `reactor.running` turns false then.

        `final`: the whole balancer ends, so nothing will release what is parked; it is refused at once. Otherwise what
        waits goes on waiting: other workers serve on, and room and `resume` come as ever.
        """
        now = self.reactor.now
        self.final = self.final or final
        self.stop_at = min(self.stop_at, now + int(deadline_s * 1e9)) if self.closing else now + int(deadline_s * 1e9)
        if self.closing:
            return
        self.closing = True
        self.cells[self.row + W_STATE] = STATE_STOPPING
        for slot in list(self.sockets):
            self.drop_sockets(slot)
        self.tunnels_end_at = now + int(self.site.snapshot.drain.tunnel_grace_s * 1e9)
        for client in self.clients:
            under_way = client.exchange
            if under_way is None:
                client.expect_last_request()
            elif not under_way.downstream and not under_way.response_head:
                under_way.close = True  # its head can still say so
        for node in self.nodes.values():
            node.close_idle()
        self._check_stopped(now)

    @staticmethod
    def _dismiss(line: Line) -> None:
        """Refuse all that wait in a line."""
        for exchange in list(line.exchanges):
            line.leave(exchange)
            exchange.answer(Cause.STOPPING)

    def _check_stopped(self, now: int) -> None:
        if self.final or now >= self.stop_at - LAST_WORDS_NS:
            self._dismiss(self.lot)
        if now >= self.stop_at - LAST_WORDS_NS:
            self._dismiss(self.queue)
        if now >= self.stop_at:
            for client in list(self.clients):
                client.abort(Cause.STOPPED)
            for tunnel in list(self.tunnels.open_ones):
                tunnel.close(Cause.STOPPED)
        if not self.clients and not self.tunnels.open_ones:
            self.reactor.running = False

    def close(self) -> None:
        """Write what is left; the process ends."""
        self.turn_end()
        self._beat(self.reactor.now)
        self.log.close()

    # --- what people ask ---------------------------------------------------------------------------------------------

    def describe_exchanges(self, node: str | None, limit: int) -> list[dict[str, Any]]:
        """Return what is under way, oldest first."""
        now = self.reactor.now
        open_ones = [client.exchange for client in self.clients if client.exchange is not None]
        open_ones += [tunnel.exchange for tunnel in self.tunnels.open_ones]
        found = []
        for exchange in sorted(open_ones, key=lambda item: item.started_at):
            at = exchange.node or exchange.tunnel_node
            name = at.node.name if at is not None else None
            if node is None or node == name:
                found.append(
                    {
                        "request_id": exchange.request_id.decode("latin-1"),
                        "method": exchange.method.decode("latin-1"),
                        "path": exchange.path.partition(b"?")[0].decode("latin-1"),
                        "node": name,
                        "age_s": round((now - exchange.started_at) / 1e9, 3),
                        "state": exchange.state.name.lower(),
                        "client": exchange.client_address or exchange.client.peer,
                    }
                )
        return found[:limit]
