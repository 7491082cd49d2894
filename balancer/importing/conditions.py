"""Conditions of HAProxy (ACLs and anonymous ones) as matches of our routes."""

from collections.abc import Iterable, Mapping
from itertools import product

from balancer.core.routing import template_fault
from balancer.importing.draft import NotCarried, Settings
from balancer.render import spelling

_HOST = ("hdr(host)", "req.hdr(host)", "req.hdr(host),host_only", "req.hdr(host),host_only,lower", "base,host_only")
_METHODS_WORDS = """
-beg -end -sub -dir -dom -reg -str -found
"""
_METHODS = frozenset(_METHODS_WORDS.split())


def matches(words: tuple[str, ...], acls: Mapping[str, list[tuple[str, ...]]]) -> list[Settings]:
    """Return what follows `if` as matches, of which any is enough. Raises NotCarried."""
    found: list[Settings] = []
    for terms in _alternatives(words):
        choices = [_term(term, acls) for term in terms]
        found.extend(_together(chosen) for chosen in product(*choices))
    return found


def caution(words: tuple[str, ...], acls: Mapping[str, list[tuple[str, ...]]]) -> str:
    """Say what the matches of these words leave out, "" when nothing: `path_beg /api` takes /apis, too."""
    terms = [term for side in _alternatives(words) for term in side]
    criteria = [item for term in terms for item in (acls.get(term[0], []) if len(term) == 1 else [term])]
    cut = [
        value
        for fetch, how, values in map(_parts, criteria)
        for value in values
        if (fetch, how) == ("path", "-beg") and not value.endswith("/")
    ]
    return f"in part: only whole segments are matched, so {', '.join(cut)} takes nothing longer" if cut else ""


def _alternatives(words: tuple[str, ...]) -> list[list[tuple[str, ...]]]:
    """The terms of each side of `||`; an anonymous condition is one term of several words."""
    sides: list[list[tuple[str, ...]]] = [[]]
    inside: list[str] | None = None
    for word in words:
        if word in ("||", "or"):
            sides.append([])
        elif word.startswith("!"):
            raise NotCarried("a route of ours has no `not`")
        elif word == "{":
            inside = []
        elif word == "}" and inside is not None:
            sides[-1].append(tuple(inside))
            inside = None
        elif inside is not None:
            inside.append(word)
        else:
            sides[-1].append((word,))
    return sides


def _term(term: tuple[str, ...], acls: Mapping[str, list[tuple[str, ...]]]) -> list[Settings]:
    """The matches of one term, of which any is enough."""
    if len(term) > 1:
        return _criterion(term)
    if term[0] in acls:
        return [match for criterion in acls[term[0]] for match in _criterion(criterion)]
    known: dict[str, list[Settings]] = {
        "TRUE": [{}],
        "METH_GET": [{"methods": ["GET", "HEAD"]}],
        "METH_POST": [{"methods": ["POST"]}],
        "METH_HEAD": [{"methods": ["HEAD"]}],
        "METH_PUT": [{"methods": ["PUT"]}],
        "METH_DELETE": [{"methods": ["DELETE"]}],
    }
    if term[0] not in known:
        raise NotCarried(f"the condition {term[0]} is not known")
    return known[term[0]]


def _criterion(words: tuple[str, ...]) -> list[Settings]:
    fetch, how, values = _parts(words)
    if fetch == "path":
        return [{"path": path} for value in values for path in _paths(how, value)]
    if fetch in _HOST:
        return [{"host": _host(how, value)} for value in values]
    if fetch == "method" and how == "-str":
        return [{"methods": list(values)}]
    name = fetch.partition("(")[2].removesuffix(")")
    if fetch.startswith(("hdr(", "req.hdr(", "req.fhdr(")) and how in ("-str", "-found"):
        return [{"headers": {name: value}} for value in values] if how == "-str" else [{"headers": {name: None}}]
    raise NotCarried(f"a route of ours cannot ask for {' '.join(words[:1])} that way")


def _parts(words: tuple[str, ...]) -> tuple[str, str, list[str]]:
    """What is looked at, how it is compared, with what."""
    fetch, how, values = words[0], "-str", list(words[1:])
    for suffix in _METHODS:  # `path_beg` is `path -m beg`, `hdr_end(host)` is `hdr(host) -m end`
        for kind in ("path", "hdr"):
            alias = f"{kind}_{suffix[1:]}"
            if fetch == alias or fetch.startswith(alias + "("):
                fetch, how = kind + fetch[len(alias) :], suffix
    while values and values[0].startswith("-"):
        flag = values.pop(0)
        if flag == "-m" and values and f"-{values[0]}" in _METHODS:
            how = f"-{values.pop(0)}"
        elif flag == "--":
            break
        elif flag != "-i":
            raise NotCarried(f"the flag {flag} of a condition")
    return fetch, how, values


def _paths(how: str, value: str) -> Iterable[str]:
    if how == "-reg":
        template = spelling.template_of(value)
        if template is None:
            raise NotCarried("paths by regular expression: write a template such as /a/{name}/* instead")
        return [template]
    if "%" in value:
        raise NotCarried("our routes see paths decoded")
    if how == "-str":
        return [_checked(value)]
    if how == "-beg":
        return [_checked(value.rstrip("/") + "/*")]
    raise NotCarried(f"a path by {how.removeprefix('-')}: write a template such as /a/{{name}}/* instead")


def _checked(path: str) -> str:
    if template_fault(path) is not None:
        raise NotCarried(f"{path} is no path template: {template_fault(path)}")
    return path


def _host(how: str, value: str) -> str:
    name = value.lower()
    if how == "-str":
        return name.rpartition(":")[0] if name.rpartition(":")[2].isdigit() else name
    if how == "-end" and name.startswith("."):
        return "*" + name
    raise NotCarried(f"a host by {how.removeprefix('-')}: write the name, or *.example.org")


def _together(parts: Iterable[Settings]) -> Settings:
    """All of them at once. Raises NotCarried when two ask for the same."""
    match: Settings = {}
    for part in parts:
        for key, value in part.items():
            if key == "headers" and key in match:
                match[key] = {**match[key], **value}
            elif key in match:
                raise NotCarried(f"two conditions on the {key} at once")
            else:
                match[key] = value
    return match
