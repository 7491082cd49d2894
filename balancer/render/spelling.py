"""Path templates as regular expressions over a raw path, for engines that match before they decode.

A node decodes `%70ing` to `ping`, so a rule that looks for `ping` alone can be walked around. Instead of trusting each
engine's own normalisation (they differ), the pattern itself allows every spelling: any letter may be percent-encoded,
slashes may be doubled, `.` segments may stand between, a trailing slash or a format suffix may follow. What `..`
segments lead to no regular expression can tell, so a path that has one and ends as the template does is taken, too:
a request too many for the route's nodes is harmless, one that slips past them is not.

The syntax used is common to PCRE, RE2 and Go: literals, groups, classes and repetition.
"""

import re

_PARAMETER = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*\}\Z")
_SEPARATOR = r"/+(?:(?:\.|%2[eE])/+)*"
_UP = r"(?:\.|%2[eE]){2}"
_SUFFIX = r"(?:(?:\.|%2[eE])[A-Za-z0-9%]+)?"


def pattern(template: str) -> str:
    """Return an anchored regex (`^...$`) for a valid path template, over the raw path without its query."""
    segments = [segment for segment in template.split("/") if segment]
    rest = segments[-1:] == ["*"]
    if rest:
        segments = segments[:-1]
    body = "".join(_SEPARATOR + _segment(segment) for segment in segments)
    if rest:
        return f"^{body}(?:/.*)?$" if body else "^/.*$"
    tail = _SUFFIX if segments and not _PARAMETER.match(segments[-1]) else ""
    if not body:
        return "^/+$"
    # A template that ends in a parameter has no end to know it by.
    climbs = f"|/(?:.*/)?{_UP}(?:/.*)?{_SEPARATOR}{_segment(segments[-1])}{tail}/*" if tail else ""
    return f"^(?:{body}{tail}/*{climbs})$"


def _segment(segment: str) -> str:
    if _PARAMETER.match(segment):
        return "[^/]+"
    return "".join(_character(character) for character in segment)


def _character(character: str) -> str:
    digits = "".join(_hex_digit(digit) for digit in f"{ord(character):02x}")
    return f"(?:{_literal(character)}|%{digits})"


def _literal(character: str) -> str:
    # A class rather than a backslash: configuration languages have their own ideas about backslashes.
    return character if character.isalnum() or character in "-_~@!&',;=:" else f"[{character}]"


def _hex_digit(digit: str) -> str:
    return f"[{digit}{digit.upper()}]" if digit.isalpha() else digit


def decoded(template: str) -> str:
    """Return the regex for engines that match the path decoded, with dot segments resolved."""
    segments = [segment for segment in template.split("/") if segment]
    rest = segments[-1:] == ["*"]
    if rest:
        segments = segments[:-1]
    body = "".join("/+" + ("[^/]+" if _PARAMETER.match(part) else "".join(map(_literal, part))) for part in segments)
    if rest:
        return f"^{body}(?:/.*)?$" if body else "^/.*$"
    tail = "(?:[.][A-Za-z0-9]+)?" if segments and not _PARAMETER.match(segments[-1]) else ""
    return f"^{body}{tail}/*$" if body else "^/+$"


_ONE = r"(?:\[[^\]^]\]|[^/()\[\]|])"
_PIECE = re.compile(
    rf"(?P<slash>{re.escape(_SEPARATOR)}|/\+)|(?P<parameter>\[\^/\]\+)"
    rf"|\(\?:(?P<coded>{_ONE})\|%[^)]*\)|(?P<plain>{_ONE})"
)


def template_of(expression: str) -> str | None:
    """Return the template that `pattern` or `decoded` would write so, None for any other expression.

    The names of parameters are not in the expression: they become `{part1}`, `{part2}`.
    """
    body = expression.removeprefix("^").removeprefix("(?:")
    template, position = "", 0
    while (piece := _PIECE.match(body, position)) is not None:
        if piece["slash"]:
            template += "/"
        elif piece["parameter"]:
            template += f"{{part{template.count('{') + 1}}}"
        else:
            template += (piece["coded"] or piece["plain"]).strip("[]")
        position = piece.end()
    candidates = (template, template + "/*", "/*", "/")
    return next((found for found in candidates if expression in (pattern(found), decoded(found))), None)


def secrets(names: tuple[str, ...]) -> str:
    """Return the regex that finds any of the names of secret parameters, however often percent-encoded."""
    return "(?:" + "|".join("".join(map(_veiled, name)) for name in names) + ")"


def _veiled(character: str) -> str:
    """One character in either case; encoded once or, with `%25` for each further time, more often."""
    cases = {character.lower(), character.upper()}
    plain = "".join(sorted(cases))
    codes = "|".join(sorted("".join(_hex_digit(digit) for digit in f"{ord(case):02x}") for case in cases))
    return f"(?:[{plain}]|%(?:25)*(?:{codes}))"
