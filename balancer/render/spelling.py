"""Path templates as regular expressions over a raw path, for engines that match before they decode.

A node decodes `%70ing` to `ping`, so a rule that looks for `ping` alone can be walked around. Instead of trusting each
engine's own normalisation (they differ), the pattern itself allows every spelling: any letter may be percent-encoded,
slashes may be doubled, `.` segments may stand between, a trailing slash or a format suffix may follow. Only `..`
segments are not covered, because no regular expression can; the engines that resolve them do so before matching.

The syntax used is common to PCRE, RE2 and Go: literals, groups, classes and repetition.
"""

import re

_PARAMETER = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*\}\Z")
_SEPARATOR = r"/+(?:(?:\.|%2[eE])/+)*"
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
    return f"^{body}{tail}/*$" if body else "^/+$"


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
