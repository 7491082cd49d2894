"""One upgrade as the command drives it: the plan compiled here, the journal there, interruptions told."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from balancer.cli.client import Client, ProblemError
from balancer.cli.exits import CommandError, Exit
from balancer.cli.output import say
from balancer.cli.upgradelines import Teller
from balancer.control.upgrade.hands import Hands
from balancer.control.upgrade.machine import Do
from balancer.control.upgrade.plan import Compiled, Order, Target, compiled
from balancer.control.upgrade.runner import Runner, StoppedError, Verdict
from balancer.control.upgrade.traffic import RefusedByBalancerError, Terms

if TYPE_CHECKING:
    from balancer.config.upgradeplan import Plan

RETURN_S = 60.0  # a balancer that is restarted is back by then
POLL_S = 0.3
MARGIN_S = 10.0
GONE_S = 12.0  # a little more than the balancer waits for a word of the one who drives

Document = dict[str, Any]
Orders = Mapping[tuple[Do, str], Order]


class PatientApi:
    """The admin API through restarts of the balancer. `waits` hears of it while nobody answers."""

    def __init__(self, client: Client, waits: Callable[[str], None]) -> None:
        self._client = client
        self._waits = waits

    def get(self, path: str) -> Document:
        """See traffic.Api."""
        return self._patiently(lambda: self._client.get(path))

    def post(self, path: str, body: Document, *, wait_s: float = 0.0) -> Document:
        """See traffic.Api."""
        return self._patiently(lambda: self._client.post(path, body, timeout_s=wait_s + MARGIN_S))

    def _patiently(self, call: Callable[[], Document]) -> Document:
        deadline = time.monotonic() + RETURN_S
        while True:
            try:
                return call()
            except ProblemError as exc:
                if exc.document.get("status") != 503 or time.monotonic() > deadline:
                    raise RefusedByBalancerError(exc.document) from exc
            except CommandError as exc:
                if exc.code is not Exit.UNREACHABLE or time.monotonic() > deadline:
                    raise
            self._waits("the balancer does not answer; waiting for it")
            time.sleep(POLL_S)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan for the nodes that there are."""

    run_id: str
    plan: "Plan"
    name: str
    compiled: Compiled
    nodes: tuple[str, ...]

    def document(self) -> Document:
        """Return what the balancer is asked for."""
        return {
            "id": self.run_id,
            "mode": self.plan.mode,
            "plan": self.name,
            "digest": self.compiled.digest,
            "nodes": list(self.nodes),
            "steps": [{"do": step.do.value, "node": step.node, "text": step.text} for step in self.compiled.steps],
            **({"hold": float(self.plan.hold)} if self.plan.hold else {}),
        }


class Session:
    """The balancer, and what this command has begun or taken up there."""

    def __init__(self, client: Client, *, quiet: bool) -> None:
        self._client = client
        self._teller = Teller(quiet=quiet)
        self._api = PatientApi(client, self._teller.waits)
        self._ticket = ""
        self._orders: Orders = {}
        self._terms = Terms()

    @property
    def cluster(self) -> str:
        """The name of the cluster."""
        return str(self._client.get("/v1/status")["cluster"])

    def prepared(self, plan: "Plan", name: str) -> Prepared:
        """Return the plan for the nodes that the balancer knows. Raises ConfigError."""
        found = compiled(plan, self._targets())
        nodes = tuple(dict.fromkeys(step.node for step in found.steps if step.node))
        run_id = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")[:-3]
        return Prepared(run_id, plan, name, found, nodes)

    def planned(self, prepared: Prepared) -> Document:
        """Ask whether it could be begun."""
        return self._client.post("/v1/upgrade", {**prepared.document(), "dry_run": True})

    def begun(self, prepared: Prepared) -> Document:
        """Begin it. What is to be executed is kept on this machine first."""
        self._orders, self._terms = prepared.compiled.orders, terms(prepared.plan)
        Hands.of(prepared.run_id).keep(self._orders, self._terms)
        return self._ticketed(self._api.post("/v1/upgrade", prepared.document()))

    def found_open(self, plan: "Plan | None") -> None:
        """Find the open one, and what it executes: kept here, or the same plan given again. Raises CommandError."""
        document = self._client.get("/v1/upgrade")
        if not document["open"]:
            raise CommandError("no upgrade is open", hint="arv-balance upgrade status", code=Exit.NO)
        kept = Hands.of(document["id"]).kept()
        if plan is not None:
            found = compiled(plan, self._targets())
            if found.digest != document["digest"]:
                why = "going on with another one would mix the two"
                raise CommandError("this is not the plan that the upgrade was begun with", why=why, code=Exit.REFUSED)
            self._orders, self._terms = found.orders, terms(plan)
            if kept is None:
                Hands.of(document["id"]).keep(self._orders, self._terms)
        elif kept is not None:
            self._orders, self._terms = kept
        else:
            raise CommandError(
                f"upgrade {document['id']} was begun by another user or on another machine",
                why="what is to be executed is kept there; it never comes from the balancer",
                hint=f"the same with the plan: {document['plan']}",
                code=Exit.USAGE,
            )

    def taken_up(self, *, force: bool, dry_run: bool = False) -> Document:
        """Take over what was found; `dry_run` only finds out whether it could be.

        A command that was killed is known to be gone after a few seconds, so those are waited for.
        """
        deadline = time.monotonic() + GONE_S
        while True:
            try:
                return self._ticketed(self._client.post("/v1/upgrade/attach", {"force": force, "dry_run": dry_run}))
            except ProblemError as exc:
                if exc.document.get("status") != 409 or time.monotonic() > deadline:
                    exc.hint = "wait for it, or take it over: the same with --force"
                    raise
            self._teller.waits("another command drives this upgrade; waiting whether it is gone")
            time.sleep(POLL_S)

    def way_back(self) -> Document:
        """Return the upgrade as it would be once it is turned around."""
        return self._client.post("/v1/upgrade/abort", {"dry_run": True})

    def turned_around(self, document: Document) -> Document:
        """Abort it."""
        if document["phase"] == "aborting":
            return document
        return self._api.post("/v1/upgrade/abort", {"ticket": self._ticket})

    def driven(self, document: Document, verdict: Verdict) -> Document:
        """Do what is left of it. Raises CommandError that says how it stands and what to type next."""
        runner = Runner(
            api=self._api,
            hands=Hands.of(document["id"]),
            orders=self._orders,
            terms=self._terms,
            teller=self._teller,
            ticket=self._ticket,
        )
        try:
            with self._teller:
                return runner.run(document, verdict)
        except StoppedError as exc:
            self._leave()
            raise self._stopped(exc) from exc
        except RefusedByBalancerError as exc:
            raise ProblemError(exc.document) from exc
        except KeyboardInterrupt:
            self._leave()
            say("\nA command that was begun goes on to its end. Then: arv-balance upgrade resume, or upgrade abort")
            raise

    def _leave(self) -> None:
        self._api.post("/v1/upgrade/beat", {"ticket": self._ticket, "leaving": True})

    def _stopped(self, exc: StoppedError) -> CommandError:
        step = exc.step
        what = f"{step['do']} {step['node']}".strip()
        output = "\n".join(f"  | {line}" for line in step["output"].splitlines()[-10:])
        pause = self._api.get("/v1/pause")
        held = f"  requests wait until {pause['pause']['until']}" if pause["paused"] else ""
        why = "\n".join(part for part in (f"  {exc}", output, held) if part).strip()
        if exc.is_unknown:
            hint = "look at the database, then: arv-balance upgrade resume --migration done, or --migration again"
            return CommandError(f"the migration is {step['state']}; it is not run again by itself", why=why, hint=hint)
        return CommandError(
            f"{what} failed", why=why, hint="arv-balance upgrade resume (tries it again), or arv-balance upgrade abort"
        )

    def _ticketed(self, document: Document) -> Document:
        self._ticket = document["ticket"]
        return document

    def _targets(self) -> list[Target]:
        nodes = self._client.get("/v1/nodes")["nodes"]
        return [
            Target(node["name"], urlsplit(node["url"]).hostname or "localhost", node["url"])
            for node in nodes
            if node["admin"] != "removed"
        ]


def terms(plan: "Plan") -> Terms:
    """Return the terms of a plan."""
    return Terms(
        ready_s=float(plan.ready),
        hold_s=float(plan.hold) if plan.hold else None,
        drain_s=float(plan.drain) if plan.drain else None,
        cut=plan.cut,
        release_per_s=float(plan.release) if plan.release else None,
        expect=plan.expect,
    )
