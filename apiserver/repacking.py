"""`replace_segments`: the same contents in other blocks. Pure.

A segment is a part of a block that a file refers to, `LOCATOR OFFSET LENGTH`. Who packs small blocks into a large one
says which segment is where now; what another writer has replaced meanwhile is left alone.
"""

import re
from collections.abc import Iterable, Mapping

from apiserver.errors import BadRequestError
from apiserver.replacing import MAX_TARGETS, Piece, Tree

_SEGMENT = re.compile(r"([0-9a-f]{32}\+([0-9]{1,20})(?:\+[A-Z][-A-Za-z0-9@_]*)*) ([0-9]{1,20}) ([0-9]{1,20})")


def parse(wanted: object) -> dict[Piece, Piece]:
    """Return where each old segment is to be read from; old ones without hints.

    Raises:
        BadRequestError: a segment is malformed, reaches beyond its block, or has another length than the new one.
    """
    if not isinstance(wanted, dict) or len(wanted) > MAX_TARGETS:
        raise BadRequestError("replace_segments must be an object: new segments by old ones")
    moves = {_plain(_segment(old)): _segment(new) for old, new in wanted.items()}
    for old, new in moves.items():
        if old.length != new.length:
            raise BadRequestError(f"replace_segments: {old.length} bytes of {old.locator} cannot be {new.length} bytes")
    return moves


def _segment(text: object) -> Piece:
    match = _SEGMENT.fullmatch(text) if isinstance(text, str) else None
    if match is None or int(match[3]) + int(match[4]) > int(match[2]) or not int(match[4]):
        raise BadRequestError(f"replace_segments: {str(text)[:80]!r} is no part of a block: LOCATOR OFFSET LENGTH")
    return Piece(match[1], int(match[3]), int(match[4]))


def _plain(piece: Piece) -> Piece:
    return Piece("+".join(piece.locator.split("+")[:2]), piece.offset, piece.length)


def locators(moves: Mapping[Piece, Piece]) -> Iterable[str]:
    """Return the locators of the new blocks, as they came."""
    return dict.fromkeys(piece.locator for piece in moves.values())


def repacked(tree: Tree, moves: Mapping[Piece, Piece]) -> Tree:
    """Return the tree with segments replaced: to a new block all that should move there, or, if one is gone, none."""
    present = {_plain(piece) for pieces in tree.values() for piece in pieces}
    unused = {new.locator for old, new in moves.items() if old not in present}
    done = {old: new for old, new in moves.items() if new.locator not in unused}
    return {path: tuple(done.get(_plain(piece), piece) for piece in pieces) for path, pieces in tree.items()}
