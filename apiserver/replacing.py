"""`replace_files`: a collection's new contents put together of files and folders of others. Pure.

A tree is a flat map from file paths (`folder/name`, as people write them) to the pieces of blocks that make a file.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from apiserver.errors import BadRequestError
from apiserver.manifests import EMPTY_PDH

_ESCAPED = re.compile(rb"\\([0-3][0-7][0-7])")
_UNSAFE = re.compile("[\x00-\x20\\\\:\x7f\udc80-\udcff]")  # the last are bytes that are no UTF-8
_LOCATOR = re.compile(r"[0-9a-f]{32}\+([0-9]+)(\+\S*)?")
MAX_TARGETS = 10_000


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of one block; offsets and lengths are in bytes."""

    locator: str
    offset: int
    length: int


Tree = dict[str, tuple[Piece, ...]]


@dataclass(frozen=True, slots=True)
class Source:
    """Where something comes from: `current`, `manifest_text` or a portable data hash, and a path in it."""

    place: str
    path: str


def unescape(text: str) -> str:
    """Return a name as people write it."""
    raw = _ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), text.encode("utf-8", "surrogateescape"))
    return raw.decode("utf-8", "surrogateescape")


def escape(text: str) -> str:
    """Return a name as manifests write it."""
    return _UNSAFE.sub(lambda match: f"\\{ord(match[0]) & 0xFF:03o}", text)


def tree_of(manifest: str) -> Tree:
    """Return the files of a well-formed manifest; equal names in one stream are one file."""
    tree: dict[str, list[Piece]] = {}
    for line in manifest.split("\n")[:-1]:
        stream, *words = line.split(" ")
        blocks: list[tuple[int, str, int]] = []  # where it begins in the stream, locator, size
        end = 0
        for word in words:
            if match := _LOCATOR.fullmatch(word):
                blocks.append((end, word, int(match[1])))
                end += int(match[1])
                continue
            position, length, name = word.split(":", 2)
            if name == ".":
                continue  # keeps an empty folder, which a tree does not have
            path = unescape(f"{stream}/{name}").removeprefix("./")
            tree.setdefault(path, []).extend(_pieces(blocks, int(position), int(length)))
    return {path: tuple(pieces) for path, pieces in tree.items()}


def _pieces(blocks: Sequence[tuple[int, str, int]], position: int, length: int) -> list[Piece]:
    found = []
    for begin, locator, size in blocks:
        first, last = max(position, begin), min(position + length, begin + size)
        if first < last:
            found.append(Piece(locator, first - begin, last - first))
    return found


def manifest_of(tree: Tree) -> str:
    """Return the manifest of a tree: folders and files in order, each block once a stream."""
    folders: dict[str, list[str]] = {}
    for path in sorted(tree):
        folders.setdefault(path.rpartition("/")[0], []).append(path)
    return "".join(_line(folder, folders[folder], tree) for folder in sorted(folders))


def _line(folder: str, paths: Sequence[str], tree: Tree) -> str:
    begins: dict[str, int] = {}
    segments: list[str] = []
    end = 0
    for path in paths:
        name = escape(path.rpartition("/")[2])
        spans: list[tuple[int, int]] = []
        for piece in tree[path]:
            if piece.locator not in begins:
                begins[piece.locator] = end
                end += int(piece.locator.split("+")[1])
            begin = begins[piece.locator] + piece.offset
            if spans and spans[-1][0] + spans[-1][1] == begin:
                spans[-1] = (spans[-1][0], spans[-1][1] + piece.length)
            else:
                spans.append((begin, piece.length))
        segments += [f"{begin}:{length}:{name}" for begin, length in spans or [(0, 0)]]
    stream = escape(f"./{folder}" if folder else ".")
    return " ".join([stream, *(begins or [EMPTY_PDH]), *segments]) + "\n"


def parse(wanted: object) -> dict[str, Source | None]:
    """Return what is to be put where, by path without its leading slash; None removes.

    Raises:
        BadRequestError: a target or source is malformed, or one target is below another.
    """
    if not isinstance(wanted, dict) or len(wanted) > MAX_TARGETS:
        raise BadRequestError("replace_files must be an object: sources by target paths")
    found: dict[str, Source | None] = {}
    for target, source in wanted.items():
        if not target.startswith("/") or not isinstance(source, str):
            raise BadRequestError(f"replace_files: {target[:80]!r} must be an absolute path, its source a string")
        path = target[1:]
        if path and not _is_plain(path):
            raise BadRequestError(f"replace_files: target {target[:80]!r} is no plain path")
        place, _, inner = source.partition("/")
        if source and (not place or (inner and not _is_plain(inner.removesuffix("/")))):
            raise BadRequestError(f"replace_files: source {source[:80]!r} is no place and path")
        found[path] = Source(place, inner.rstrip("/")) if source else None
    for path in found:
        if any(other != path and (not other or path.startswith(f"{other}/")) for other in found):
            raise BadRequestError(f"replace_files: /{path[:80]} is below another target")
    return found


def _is_plain(path: str) -> bool:
    return all(part not in ("", ".", "..") for part in path.split("/"))


def replaced(base: Tree, wanted: Mapping[str, Source | None], places: Mapping[str, Tree]) -> Tree:
    """Return the base with each target replaced.

    Raises:
        BadRequestError: a source is not there, or a file would be a folder too.
    """
    result = dict(base)
    for target in wanted:
        for path in [path for path in result if _is_in(path, target)]:
            del result[path]
    for target, source in wanted.items():
        if source is not None:
            result |= _taken(places[source.place], source, target)
    folders = {path[: match.start()] for path in result for match in re.finditer("/", path)}
    if clash := next((path for path in sorted(folders) if path in result), None):
        raise BadRequestError(f"replace_files: /{clash[:80]} would be a file and a folder")
    return result


def _is_in(path: str, folder: str) -> bool:
    return not folder or path == folder or path.startswith(f"{folder}/")


def _taken(tree: Tree, source: Source, target: str) -> Tree:
    if source.path in tree:
        if not target:
            raise BadRequestError("replace_files: / can be replaced by a folder only")
        return {target: tree[source.path]}
    prefix = f"{source.path}/" if source.path else ""
    found = {path.removeprefix(prefix): pieces for path, pieces in tree.items() if path.startswith(prefix)}
    if not found and source.path:
        raise BadRequestError(f"replace_files: {source.place[:60]}/{source.path[:80]} does not exist")
    return {f"{target}/{path}" if target else path: pieces for path, pieces in found.items()}
