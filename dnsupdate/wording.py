"""What is wrong with a value of the `dns:` section, in words of the file instead of pydantic's. Pure."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

_TEXTS = {
    "tuple_type": "must be a list, in brackets: [...]",
    "dict_type": "must be keys with values",
    "model_type": "must be keys with values",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "path_type": "must be a path",
    "missing": "is missing",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "string_pattern_mismatch": "must be 1 to 32 lower-case letters and digits",  # there is only one pattern: owner
}


def wording(error: Mapping[str, Any]) -> tuple[str, str]:
    """Return message and hint of one of pydantic's errors."""
    kind, context = error["type"], error.get("ctx", {})
    if kind in _TEXTS:
        return _TEXTS[kind].format(**context), ""
    if kind == "literal_error":
        choices = [choice.strip("' ") for choice in context["expected"].replace(" or ", ", ").split(",")]
        return f"must be one of {', '.join(choices)}", near(str(error["input"]), choices, known="")
    return str(error["msg"]).removeprefix("Value error, "), ""


def near(name: str, choices: Iterable[str], known: str = "known") -> str:
    """Return a question after the closest name, or what there is; with `known` empty nothing then."""
    names = list(choices)
    found = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if found:
        return f"did you mean '{found[0]}'?"
    return f"{known}: " + (", ".join(names) or "none") if known else ""
