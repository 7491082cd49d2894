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
from balancer.model import Admin, Listener, Node, Snapshot
from balancer.net.claims import Claims
from balancer.net.downstream import Downstream
from balancer.net.exchange import Exchange
from balancer.net.ledger import Ledger
from balancer.net.listener import Acceptor, Gate
from balancer.net.nodes import NodeState
from balancer.net.pipes import Pipes
from balancer.net.poller import READ
from balancer.net.reactor import Reactor
from balancer.net.retrybudget import RetryBudget
from balancer.net.site import Site
from balancer.net.tls import ListenerContexts, TlsClient, node_context
from balancer.net.tunnel import Tunnels
from balancer.net.turnedaway import TurnedAway
from balancer.net.waiting import Line, ParkingLot, Queue
from balancer.observe.accesslog import make_formatter
from balancer.scoreboard import (
    L_CELLS,
    REJECT_REASONS,
    STATE_LISTENING,
    STATE_STOPPING,
    W_CONNECTIONS,
    W_GENERATION,
    W_LISTENERS,
    W_PAUSED_GENERATION,
    W_REJECTED,
    W_STATE,
    Scoreboard,
)

logger = logging.getLogger(__name__)

SURPLUS = 64  # connections over the limit that are told so; those over these are just closed
HEALTH_NS = 10_000_000  # control's verdicts are looked at this often, besides wake-ups
LAST_WORDS_NS = 500_000_000  # before the deadline of a stop those that still wait are told


class Plane(Ledger):
    """All connections, nodes and waiting lines of one worker, on one reactor."""

    def __init__(self, reactor: Reactor, board: Scoreboard, slot: int, wakes: list[int], log_fd: int = 1) -> None:
        super().__init__(reactor, board, slot, log_fd)
        self.claims = Claims(board, slot, wakes)
        self.nodes: dict[int, NodeState] = {}
        self.clients: set[Downstream] = set()
        self.pipes = Pipes()
        self.sockets: dict[int, list[Acceptor]] = {}
        self.site = Site(Snapshot(0, ""), {}, self.claims)
        self.waiting = False
        self.lot = ParkingLot(self)
        self.queue = Queue(self)
        self.tunnels = Tunnels(self)
        self.retry_budget = RetryBudget(board, self.claims)
        self.passed_over: dict[int, int] = {}
        self.closing = False
        self.final = False  # and the whole balancer with us
        self.stop_at = 0
        self.tunnels_end_at = 0
        self._connections_cell = self.row + W_CONNECTIONS
        self._next_health = 0
        self._health_dirty = True
        reactor.turn_ends.append(self.turn_end)
        reactor.sweeps.append(self.sweep)

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
        self.retry_budget.follow(snapshot.retry)
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
        if self._unwritten:
            self.write_down()
        if self._ended or self._connections:
            self.flush_tallies()
        if self.log.lines or self.log.rest:
            self.write_log()
        if now >= self._next_beat:
            self.beat(now)
            self.retry_budget.sample(now)

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
            node.flush_tallies(self.second)
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
        self.statistics_may_wait = False
        self.turn_end()
        self.beat(self.reactor.now)
        self.log.close()
