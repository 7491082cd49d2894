"""`replace_files`: a collection's new contents put together of files and folders of others. Pure.

A tree is a flat map from file paths (`folder/name`, as people write them) to the pieces of blocks that make a file.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

from apiserver.errors import BadRequestError
from apiserver.manifests import EMPTY_PDH

_ESCAPED = re.compile(rb"\\([0-3][0-7][0-7])")
_UNSAFE = re.compile("[\x00-\x20\\\\:\x7f\udc80-\udcff]")  # the last are bytes that are no UTF-8
_LOCATOR = re.compile(r"[0-9a-f]{32}\+([0-9]+)(\+\S*)?")
MAX_TARGETS = 10_000
MAX_FILES = 1_000_000  # a few targets can ask for copies of large folders many times over


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
        locators: list[str] = []
        edges = [0]  # where in the stream each block begins, and the last one ends
        for word in words:
            if match := _LOCATOR.fullmatch(word):
                locators.append(word)
                edges.append(edges[-1] + int(match[1]))
                continue
            position, length, name = word.split(":", 2)
            if name == ".":
                continue  # keeps an empty folder, which a tree does not have
            path = unescape(f"{stream}/{name}").removeprefix("./")
            tree.setdefault(path, []).extend(_pieces(locators, edges, int(position), int(length)))
    return {path: tuple(pieces) for path, pieces in tree.items()}


def _pieces(locators: Sequence[str], edges: Sequence[int], position: int, length: int) -> Iterator[Piece]:
    end = position + length
    for number in range(bisect_right(edges, position) - 1, bisect_left(edges, end)):
        first, last = max(position, edges[number]), min(end, edges[number + 1])
        if first < last:
            yield Piece(locators[number], first - edges[number], last - first)


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
        BadRequestError: a target or source is malformed, or one target is below another that is not just emptied.
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
    for outer, inner in _nested(found):
        if found[outer] is not None:
            raise BadRequestError(f"replace_files: /{inner[:80]} is below another target")
    return found


def _is_plain(path: str) -> bool:
    return all(part not in ("", ".", "..") for part in path.split("/"))


def _parts(path: str) -> list[str]:
    return path.split("/") if path else []


def _nested(paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Return folders that are among the paths, each with the path in it that comes next."""
    for outer, inner in pairwise(sorted(paths, key=_parts)):  # what is in a folder comes right behind it
        if not outer or inner.startswith(f"{outer}/"):
            yield outer, inner


class _Index:
    """Finds what is in a folder of a tree without a look at all the rest: both may be asked for many times."""

    def __init__(self, tree: Tree) -> None:
        self._sorted = sorted(map(_parts, tree))

    def below(self, path: str) -> Iterator[str]:
        """Return the file, or the files in the folder, of that path."""
        parts = _parts(path)
        for found in islice(self._sorted, bisect_left(self._sorted, parts), None):
            if found[: len(parts)] != parts:
                return
            yield "/".join(found)


def replaced(base: Tree, wanted: Mapping[str, Source | None], places: Mapping[str, Tree]) -> Tree:
    """Return the base with each target replaced.

    Raises:
        BadRequestError: a source is not there, a file would be a folder too, or there would be too many files.
    """
    result, old = dict(base), _Index(base)
    for target in wanted:
        for path in old.below(target):
            result.pop(path, None)
    indices = {name: _Index(tree) for name, tree in places.items()}
    for target, source in wanted.items():
        if source is not None:
            result |= _taken(places[source.place], indices[source.place], source, target)
        if len(result) > MAX_FILES:
            raise BadRequestError(f"replace_files: the collection would have more than {MAX_FILES} files")
    if clash := next(_nested(result), None):
        raise BadRequestError(f"replace_files: /{clash[0][:80]} would be a file and a folder")
    return result


def _taken(tree: Tree, index: _Index, source: Source, target: str) -> Tree:
    if source.path in tree:
        if not target:
            raise BadRequestError("replace_files: / can be replaced by a folder only")
        return {target: tree[source.path]}
    skipped = len(source.path) + 1 if source.path else 0
    found = {path[skipped:]: tree[path] for path in index.below(source.path)}
    if not found and source.path:
        raise BadRequestError(f"replace_files: {source.place[:60]}/{source.path[:80]} does not exist")
    return {f"{target}/{path}" if target else path: pieces for path, pieces in found.items()}
