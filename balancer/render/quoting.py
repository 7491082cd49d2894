"""Values into engine configuration: quoted so that none can leave its place, or refused.

Control characters are refused everywhere: no engine has a harmless spelling for all of them. Bytes above 127 pass in
quoted strings only.
"""

import json
import re

from balancer.errors import ConfigError

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_WORD = re.compile(r"[A-Za-z0-9._/:@%+=,~-]+\Z")


def refuse_control(value: str, what: str = "value") -> str:
    """Return `value`. Raises ConfigError when it holds a control character."""
    found = _CONTROL.search(value)
    if found is not None:
        raise ConfigError(f"{what} {value!r} holds the control character {found[0]!r}, which no engine takes")
    return value


def haproxy(value: object) -> str:
    """One HAProxy word, in strong quotes when it needs any (configuration manual 2.2): nothing is special in them."""
    text = refuse_control(str(value))
    if _WORD.match(text):
        return text
    return "'" + text.replace("'", "'\"'\"'") + "'"


def haproxy_format(value: object) -> str:
    """Text inside a log-format string that stands in strong quotes: percent signs doubled (manual 8.2.4)."""
    text = refuse_control(str(value))
    if "'" in text:
        raise ConfigError(f"{text!r} holds a single quote, which cannot stand in an HAProxy format string")
    return text.replace("%", "%%")


def nginx(value: object) -> str:
    """One nginx word in double quotes. A dollar sign would be a variable and nginx has no escape for it: refused."""
    text = refuse_control(str(value))
    if "$" in text:
        raise ConfigError(f"{text!r} holds a dollar sign, which nginx takes for a variable and cannot escape")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def nginx_regex(value: str) -> str:
    """A regular expression as one nginx word: in double quotes; a dollar sign only where a variable cannot begin."""
    text = refuse_control(value)
    if re.search(r"\$[A-Za-z0-9_{]", text):
        raise ConfigError(f"the pattern {text!r} holds '$' before a letter, which nginx takes for a variable")
    # Inside quotes nginx removes a backslash only before a quote or another backslash.
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def yaml(value: object) -> str:
    """One YAML scalar: JSON is YAML, and a JSON string is one line and closed by its quote."""
    if isinstance(value, str):
        return json.dumps(refuse_control(value), ensure_ascii=False)
    return json.dumps(value)


def traefik(value: object) -> str:
    """One YAML scalar without a `{`: Traefik runs its dynamic file through Go's templates before it reads YAML."""
    return yaml(value).replace("{", "\\u007b") if isinstance(value, str) else yaml(value)


def caddy(value: object) -> str:
    """One Caddyfile token in double quotes; `{` would begin a placeholder and is escaped."""
    return caddy_regex(str(value).replace("{", "\\{"))


def caddy_regex(value: str) -> str:
    """A regular expression as one Caddyfile token in double quotes, where a backslash escapes a quote only."""
    text = refuse_control(value)
    if re.search(r'\\["]|\\\Z|\{\$', text):
        raise ConfigError(
            f"{text!r} ends in a backslash, has one before a quote, or holds '{{$', which a Caddyfile cannot quote"
        )
    return '"' + text.replace('"', '\\"') + '"'


def comment(value: object) -> str:
    """Text for a comment line of any engine: whatever would end the line is shown, not written."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", str(value))
