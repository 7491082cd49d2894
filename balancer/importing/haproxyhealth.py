"""Health checks of haproxy.cfg: `option httpchk` and `http-check`."""

import re
from collections.abc import Callable
from typing import Any

from balancer.importing.draft import Draft, NotCarried
from balancer.importing.haproxylines import Line

_MEMBER = re.compile(r'"(?P<key>[^"]+)" \*: \*(?P<value>.+)')
_BEARER = re.compile(r"Bearer \$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def read(draft: Draft, lines: list[Line], note: Callable[..., None]) -> None:
    """Set `health` from the lines of a backend. `note(line)` for what was read, `note(line, why)` for what is lost."""
    if not any(line.words[:2] == ("option", "httpchk") for line in lines):
        return
    for line in lines:
        try:
            if line.words[:2] == ("option", "httpchk"):
                _option(draft, line.words[2:])
            elif line.words[:2] == ("http-check", "send"):
                _send(draft, list(line.words[2:]))
            elif line.words[:2] == ("http-check", "expect"):
                _expect(draft, line.words[2:])
            else:
                continue
            note(line)
        except (NotCarried, ValueError, IndexError) as exc:
            note(line, str(exc) or "it is not complete")


def _option(draft: Draft, words: tuple[str, ...]) -> None:
    """`option httpchk [METHOD] URI [VERSION]`; a Host field may hang on the version."""
    if not words:
        return
    method, path = ("GET", words[0]) if words[0].startswith("/") else (words[0], words[1] if len(words) > 1 else "/")
    draft.set("health.path", path)
    rest = " ".join(words[2:] if not words[0].startswith("/") else words[1:])
    host = re.search(r"Host:\s*([^\\\s]+)", rest)
    if host is not None:
        draft.set("health.host", host[1])
    if method not in ("GET", "HEAD"):
        raise NotCarried(f"checks are made by GET, not by {method}; the path is carried over")


def _send(draft: Draft, words: list[str]) -> None:
    unknown = []
    while words:
        word = words.pop(0)
        if word == "uri":
            draft.set("health.path", words.pop(0))
        elif word == "hdr":
            name, value = words.pop(0).lower(), words.pop(0)
            token = _BEARER.fullmatch(value)
            if name == "host":
                draft.set("health.host", value)
            elif name == "authorization" and token is not None:
                draft.set("health.token", {"env": token[1]})
            else:
                unknown.append(f"the field {name}")
        elif word in ("meth", "ver"):
            if (value := words.pop(0)) not in ("GET", "HTTP/1.1", "HTTP/1.0"):
                unknown.append(value)
        else:
            unknown.append(word)
    if unknown:
        raise NotCarried(f"of this line: {', '.join(unknown)}")


def _expect(draft: Draft, words: tuple[str, ...]) -> None:
    kind, value = words[-2], words[-1]
    if "!" in words:
        raise NotCarried("no check of ours expects that something is not there")
    member = _MEMBER.fullmatch(value)
    if kind == "status":
        draft.set("health.expect.status", [int(status) for status in value.split(",")])
    elif kind == "rstring" and member is not None:
        key = re.sub(r"\[(.)\]", r"\1", member["key"])
        draft.set("health.expect.json", {**(draft.get("health.expect.json") or {}), key: _value(member["value"])})
    elif kind == "string":
        draft.set("health.expect.body", value)
    else:
        raise NotCarried(f"no check of ours expects {kind}: expect: {{status, json, body}}")


def _value(text: str) -> Any:
    plain = re.sub(r"\[(.)\]", r"\1", text)
    if plain.startswith('"'):
        return plain.strip('"')
    if plain in ("true", "false"):
        return plain == "true"
    return int(plain) if re.fullmatch(r"-?\d+", plain) else float(plain)
