"""nginx.conf and what it includes, as a tree of directives (by crossplane)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from balancer.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Directive:
    """One directive. `block` is None for one without braces; `comment`: what stands behind it on its line."""

    name: str
    args: tuple[str, ...]
    line: int
    text: str
    block: tuple["Directive", ...] | None = None
    comment: str = ""

    def each(self, *names: str) -> Iterator["Directive"]:
        """Yield what is directly inside and has one of these names."""
        yield from (item for item in self.block or () if item.name in names)

    def first(self, name: str) -> "Directive | None":
        """Return the first of that name inside."""
        return next(self.each(name), None)


def tree(path: Path) -> Directive:
    """Return the file as one directive without a name. Raises ConfigError."""
    try:
        import crossplane
    except ImportError as exc:
        raise ConfigError("reading nginx files needs crossplane: pip install 'arv-balance[import]'") from exc
    found = crossplane.parse(str(path), comments=True, check_ctx=False, check_args=False)
    for error in found["errors"]:
        raise ConfigError(str(error["error"]) or "it is no nginx.conf")
    files = [_File(file["parsed"], _lines(file["file"])) for file in found["config"]]
    return Directive("", (), 0, "", tuple(_directives(files[0].parsed, files[0].lines, files)))


@dataclass(frozen=True, slots=True)
class _File:
    parsed: list[dict[str, Any]]
    lines: list[str]


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text("utf-8", "surrogateescape").splitlines()
    except OSError:  # crossplane has said so already
        return []


def _directives(items: list[dict[str, Any]], lines: list[str], files: list[_File]) -> Iterator[Directive]:
    comments = {item["line"]: item["comment"].strip() for item in items if item["directive"] == "#"}
    for item in items:
        name, number = item["directive"], item["line"]
        if name == "include":
            for index in item.get("includes", ()):
                yield from _directives(files[index].parsed, files[index].lines, files)
        elif name != "#":
            block = tuple(_directives(item["block"], lines, files)) if "block" in item else None
            text = lines[number - 1].strip() if number <= len(lines) else name
            yield Directive(name, tuple(item["args"]), number, text, block, comments.get(number, ""))
