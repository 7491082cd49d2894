"""One health check of one node: a single HTTP request, judged by status and body, explained in words."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from balancer.control.httpclient import NoAnswerError, Target, get

EXCERPT_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a healthy answer looks like. `json`: dotted path -> value. `body`: a text it has to contain."""

    statuses: tuple[int, ...] = (200,)
    json: Mapping[str, Any] = field(default_factory=dict)
    body: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What a check found. `refused`: nobody listens, which counts at once. `document`: the JSON body, if it is one."""

    ok: bool
    text: str  # for people: "OK" or what is wrong
    duration_s: float = 0.0
    refused: bool = False
    status: int = 0
    document: Any = None


async def check(target: Target, expect: Expectation, *, timeout_s: float) -> Result:
    """Ask once and judge the answer; every failure of the node is a `Result`, never an exception."""
    began = time.monotonic()
    try:
        status, body = await get(target, timeout_s=timeout_s)
    except NoAnswerError as exc:
        duration_s = time.monotonic() - began
        return Result(ok=False, text=_excerpt(str(exc)), duration_s=duration_s, refused=exc.refused)
    return judge(status, body, expect, token_sent=bool(target.token), duration_s=time.monotonic() - began)


def judge(status: int, body: bytes, expect: Expectation, *, token_sent: bool, duration_s: float) -> Result:
    """Decide whether an answer is a healthy one."""
    text = body.decode(errors="replace")
    document = _json(text)
    wrong = _wrong_status(status, text, expect, token_sent=token_sent) or _wrong_body(status, text, document, expect)
    return Result(ok=not wrong, text=wrong or "OK", duration_s=duration_s, status=status, document=document)


def _wrong_status(status: int, text: str, expect: Expectation, *, token_sent: bool) -> str:
    if status in expect.statuses:
        return ""
    if status == 404 and "disabled" in text:
        return "404 disabled: ManagementToken is not set on the node"
    if status == 401 and not token_sent:
        return "401: the check needs a token; set health.token"
    if status in {401, 403} and token_sent:
        return f"{status}: the node does not accept the token of health.token"
    wanted = " or ".join(map(str, expect.statuses))
    return f"answers {status} instead of {wanted}" + (f": {_excerpt(text)}" if text.strip() else "")


def _wrong_body(status: int, text: str, document: Any, expect: Expectation) -> str:
    for path, wanted in expect.json.items():
        if document is None:
            return f"answers {status}, but its body is not JSON: {_excerpt(text)}"
        found = lookup(document, path)
        if found != wanted or isinstance(found, bool) != isinstance(wanted, bool):
            error = lookup(document, "error")
            said = f"{path}={_excerpt(found if isinstance(found, str) else json.dumps(found))}"
            return f"answers {status}, but says {said}" + (f": {_excerpt(str(error))}" if error else "")
    if expect.body not in text:
        return f"answers {status}, but its body does not contain {expect.body!r}: {_excerpt(text)}"
    return ""


def lookup(document: Any, path: str) -> Any:
    """Return the value at a dotted path of JSON objects, None when there is none."""
    for name in path.split("."):
        if not isinstance(document, dict) or name not in document:
            return None
        document = document[name]
    return document


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _excerpt(text: str) -> str:
    clean = "".join(char if char.isprintable() else " " for char in text).strip()
    return clean if len(clean) <= EXCERPT_CHARACTERS else clean[: EXCERPT_CHARACTERS - 1] + "…"
