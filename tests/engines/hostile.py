"""Every place of a configuration that takes a text, with a hostile one in it."""

import copy
from typing import Any

from hypothesis import strategies as st

from tests.render import settings
from tests.render.settings import Values

SIGNS = [
    "'",
    '"',
    "\n",
    "\r",
    "\t",
    "${HOME}",
    "$x",
    "$1",
    "{{",
    "}}",
    "{",
    "}",
    "{$HOME}",
    "{http.request.host}",
    "#",
    " # ",
]
SIGNS += [
    " ",
    ";",
    "\\",
    '\\"',
    "é",
    "ÿ",
    "%[src]",
    "%(x)",
    "%",
    "%REQ(x)%",
    "`",
    "|",
    "(",
    ")",
    "[",
    "]",
    "*",
    "\x00",
    "\x7f",
    "]]",
    "'''",
]
_PREFIXES = {"path": "/", "cert": "/", "key": "/", "ca": "/", "client_ca": "/", "file": "/", "dir": "/", "socket": "/"}
# Names that stand as keys.
_KEYS = ("nodes", "designated", "routes[].match.headers", "health.expect.json")


def texts() -> st.SearchStrategy[str]:
    """A hostile text of a few signs."""
    return st.lists(st.sampled_from([*SIGNS, "a", "b"]), min_size=1, max_size=4).map("".join)


def places() -> list[str]:
    """The keys whose value is a text, or a list or mapping of them."""
    found = [path for path, value in settings.OTHER.items() if _is_text(value)]
    return [*found, "listen.unix", "nodes.unix", *(f"key of {name}" for name in _KEYS)]


def _is_text(value: Any) -> bool:
    if isinstance(value, str):
        return True
    items = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return bool(items) and all(isinstance(item, str) for item in items)


def with_text(place: str, text: str, folder: str = "") -> Values:
    """Return the configuration with a text in that place. `folder`: where paths begin that an engine might open."""
    if place == "listen.unix":
        values = copy.deepcopy(settings.BASE)
        values["listen"].append({"bind": f"unix:{folder}/{text}"})
        return values
    if place == "nodes.unix":
        values = copy.deepcopy(settings.BASE)
        values["nodes"]["api3"] = {"url": f"unix:{folder}/{text}"}
        return values
    if place.startswith("key of "):
        return _with_key(place.removeprefix("key of "), text)
    _, values = settings.pair(place)
    old = settings.OTHER[place]
    prefix = _PREFIXES.get(place.rpartition(".")[2], "")
    new = (folder if prefix and place.startswith("log") else "") + prefix + text
    value = [new] if isinstance(old, list) else dict.fromkeys(old, new) if isinstance(old, dict) else new
    settings.put(values, place, value)
    return values


def _with_key(place: str, text: str) -> Values:
    values = copy.deepcopy(settings.BASE)
    if place == "nodes":
        values["nodes"][text] = {**values["nodes"]["api2"], "url": "https://10.2.0.9:8003"}
    elif place == "designated":
        values["designated"][text] = values["designated"]["dns"]
        values["routes"][0]["to"] = {"designated": text}
    elif place == "health.expect.json":
        values["health"]["expect"]["json"] = {text: "OK"}
    else:
        values["routes"][0]["match"]["headers"] = {text: "1"}
    return values
