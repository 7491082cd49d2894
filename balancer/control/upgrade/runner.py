"""Carries the steps of an upgrade out, one after the other, each in the journal before it has effect."""

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from balancer.control.upgrade.hands import Found, Hands, How
from balancer.control.upgrade.machine import COMMANDS, Do, State, Word
from balancer.control.upgrade.plan import Order
from balancer.control.upgrade.traffic import Api, StepFailedError, Terms, Traffic

POLL_S = 0.1
BEAT_S = 2.0

Document = dict[str, Any]


class StoppedError(Exception):
    """A step failed, or nobody knows how it ended: the upgrade stands. `document` is the upgrade."""

    def __init__(self, why: str, document: Document, step: Document, *, is_unknown: bool = False) -> None:
        super().__init__(why)
        self.document, self.step, self.is_unknown = document, step, is_unknown


class Teller(Protocol):
    """Says to people what goes on."""

    def begins(self, step: Document) -> None:
        """A step begins."""

    def waits(self, text: str) -> None:
        """It goes on; `text` says how far it is."""

    def ended(self, step: Document, note: str) -> None:
        """A step is done."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an operator says about a migration of which nobody knows how it ended, or that failed."""

    is_done: bool = False
    may_run_again: bool = False


class Runner:
    """Drives one upgrade. `ticket` fences it: who takes over has another one."""

    def __init__(
        self,
        *,
        api: Api,
        hands: Hands,
        orders: Mapping[tuple[Do, str], Order],
        terms: Terms,
        teller: Teller,
        ticket: str,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._api = api
        self._hands = hands
        self._orders = orders
        self._traffic = Traffic(api, terms, teller.waits, sleep)
        self._teller = teller
        self._ticket = ticket
        self._sleep = sleep

    def run(self, document: Document, verdict: Verdict) -> Document:
        """Do every step that is left, then close the upgrade; returns it. Raises StoppedError."""
        while (number := document["next"]) is not None:
            document = self._step(document, document["steps"][number], verdict)
            verdict = Verdict()
        return self._api.post("/v1/upgrade/end", {"ticket": self._ticket})

    def _step(self, document: Document, step: Document, verdict: Verdict) -> Document:
        self._teller.begins(step)
        if step["state"] == State.RUNNING:
            document, step = self._picked_up(document, step)
        if step["state"] in {State.FAILED, State.UNKNOWN} and step["do"] == Do.MIGRATE:
            if verdict.is_done:
                return self._say(step, Word.SETTLE)
            if not verdict.may_run_again:
                raise StoppedError(step["why"] or "it failed", document, step, is_unknown=True)
        if step["state"] != State.DONE:
            document = self._done(step, again=verdict.may_run_again)
        return document

    def _picked_up(self, document: Document, step: Document) -> tuple[Document, Document]:
        """Find out how a step that was under way ended; what is no command is simply done again."""
        number = step["number"]
        if step["do"] not in COMMANDS:
            document = self._say(step, Word.LOSE, why="the command that did it was interrupted")
        else:
            document = self._concluded(step, self._waited_for(step["token"], step["where"]))
        return document, document["steps"][number]

    def _done(self, step: Document, *, again: bool) -> Document:
        token = secrets.token_hex(8)
        facts = {"token": token, "where": self._hands.where}
        document = self._say(step, Word.BEGIN, again=again, **facts)
        if step["do"] in COMMANDS:
            order = self._orders[Do(step["do"]), step["node"]]
            self._hands.start(token, order, is_migration=step["do"] == Do.MIGRATE)
            return self._concluded(step, self._waited_for(token, self._hands.where))
        try:
            note = self._traffic.do(document, step)
        except StepFailedError as exc:
            document = self._say(step, Word.FAIL, why=str(exc))
            self._stop_unless_aborting(str(exc), document, step)
            return document
        document = self._say(step, Word.SUCCEED)
        self._teller.ended(document["steps"][step["number"]], note)
        return document

    def _waited_for(self, token: str, where: str) -> Found:
        beat_at = time.monotonic() + BEAT_S
        while (found := self._hands.look(token, where)).how is How.RUNNING:
            self._sleep(POLL_S)
            if time.monotonic() >= beat_at:
                self._api.post("/v1/upgrade/beat", {"ticket": self._ticket})
                beat_at = time.monotonic() + BEAT_S
        return found

    def _concluded(self, step: Document, found: Found) -> Document:
        facts = {"output": found.output}
        match found.how:
            case How.ENDED if found.exit == 0:
                document = self._say(step, Word.SUCCEED, exit=0, **facts)
                self._teller.ended(document["steps"][step["number"]], "")
            case How.ENDED:
                document = self._say(step, Word.FAIL, exit=found.exit, why=found.why, **facts)
                self._stop_unless_aborting(found.why, document, step)
            case _:
                why = found.why or "it was not begun"
                document = self._say(step, Word.LOSE, why=why, **facts)
                if step["do"] == Do.MIGRATE and found.how is How.NEVER:
                    return self._done(document["steps"][step["number"]], again=True)  # known not to have run
        return document

    def _stop_unless_aborting(self, why: str, document: Document, step: Document) -> None:
        if document["phase"] == "forward":
            raise StoppedError(why, document, document["steps"][step["number"]])

    def _say(self, step: Document, word: Word, **facts: Any) -> Document:
        # The token makes a word that was sent twice, because an answer was lost, the same word.
        body = {"ticket": self._ticket, "word": word.value, "token": secrets.token_hex(8), **facts}
        return self._api.post(f"/v1/upgrade/steps/{step['number']}", body)
