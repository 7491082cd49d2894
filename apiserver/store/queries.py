"""Named queries: each `.sql` file beside this module holds blocks that start with `-- name: NAME`."""

import re
from functools import cache
from importlib.resources import files

_BLOCK = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


@cache
def load(file: str) -> dict[str, str]:
    """Return the queries of `sql/{file}.sql` by name."""
    text = (files("apiserver.store") / "sql" / f"{file}.sql").read_text(encoding="utf-8")
    parts = _BLOCK.split(text)[1:]
    return {name: body.strip().rstrip(";") for name, body in zip(parts[::2], parts[1::2], strict=True)}
