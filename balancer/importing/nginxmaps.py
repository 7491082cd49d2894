"""Routes that stand in `map` blocks of nginx.conf, as our own renderer writes them and people do, too."""

import re

from balancer.importing.draft import NotCarried, Settings
from balancer.importing.nginxfile import Directive
from balancer.render import spelling

Found = tuple[str, Settings, str]  # name, match, upstream


def routes_of(http: Directive, variable: str) -> tuple[str, list[Found]]:
    """Return the upstream for the rest, and the routes, of a variable that names the upstream. Raises NotCarried."""
    maps = {item.args[1]: item for item in http.each("map") if len(item.args) == 2}
    chosen = maps.get(variable)
    if chosen is None:
        raise NotCarried(f"where {variable} leads is not told by a map")
    variables = re.findall(r"\$\w+", chosen.args[0])
    fallback, routes = "", []
    for entry in chosen.block or ():
        if entry.name == "default":
            fallback = entry.args[0]
            continue
        place = re.fullmatch(r"~\^(?:0\{(\d+)\})?1", entry.name)
        if place is None:
            raise NotCarried(f"the pattern {entry.name} of a map")
        upstream = entry.args[0]
        name = re.sub(r"^route_\d+_", "", upstream)
        routes.append((name, _match(maps, variables[int(place[1] or 0)]), upstream))
    return fallback, routes


def _match(maps: dict[str, Directive], variable: str) -> Settings:
    match: Settings = {}
    for condition in re.findall(r"\$\w+", maps[variable].args[0]):
        source = maps[condition].args[0]
        pattern = next(item.name for item in maps[condition].block or () if item.args == ("1",))
        if source == "$uri":
            match["path"] = spelling.template_of(pattern.removeprefix("~"))
        elif source == "$host":
            match["host"] = pattern
        elif source == "$request_method":
            match["methods"] = pattern.removeprefix("~^(?:").removesuffix(")$").split("|")
        else:
            header = source.removeprefix("$http_").replace("_", "-")
            match.setdefault("headers", {})[header] = None if pattern == "~." else pattern
    return match
