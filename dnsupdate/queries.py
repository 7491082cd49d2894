"""SQL lives in `.sql` files: one block a query, named by a `-- name:` line."""

import re
from functools import cache
from importlib.resources import files

_BLOCK = re.compile(r"^-- name: (\w+)\n(.*?)(?=^-- name: |\Z)", re.MULTILINE | re.DOTALL)


@cache
def load(name: str) -> dict[str, str]:
    """Return the queries of `sql/<name>.sql` by their names."""
    text = (files("dnsupdate") / "sql" / f"{name}.sql").read_text(encoding="utf-8")
    return {match[1]: match[2].strip() for match in _BLOCK.finditer(text)}
