"""A collection's new contents out of files and folders of others: what is in them, and at what cost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver import replacing
from apiserver.errors import BadRequestError
from apiserver.manifests import parse
from apiserver.replacing import MAX_FILES, MAX_TARGETS, Piece, Tree, manifest_of, replaced, tree_of

BLOCKS = [f"{digit * 32}+{size}" for digit, size in (("a", 3), ("b", 1), ("c", 0), ("d", 7))]
NAMES = st.text(st.characters(exclude_characters="/\x00", exclude_categories=["Cs"]), min_size=1, max_size=4).filter(
    lambda name: name not in (".", "..")
)


@st.composite
def _trees(draw: st.DrawFn) -> Tree:
    """Files in folders `d0` to `d2` and at the top, made of pieces of blocks."""
    tree: Tree = {}
    for name in draw(st.lists(NAMES, max_size=5)):
        folder = draw(st.sampled_from(["", "/d0/", "/d1/d2/"]))
        pieces = []
        for locator in draw(st.lists(st.sampled_from([BLOCKS[0], BLOCKS[1], BLOCKS[3]]), max_size=3)):
            size = int(locator.split("+")[1])
            begin = draw(st.integers(0, size - 1))
            pieces.append(Piece(locator, begin, draw(st.integers(1, size - begin))))
        tree[f"{folder}{name}".lstrip("/")] = tuple(pieces)
    return tree


def _bytes(tree: Tree) -> dict[str, list[tuple[str, int]]]:
    """What each file holds, byte by byte."""
    return {
        path: [(piece.locator, piece.offset + n) for piece in pieces for n in range(piece.length)]
        for path, pieces in tree.items()
    }


@given(_trees())
def test_a_tree_survives_its_manifest(tree: Tree) -> None:
    manifest = manifest_of(tree)
    assert _bytes(tree_of(manifest)) == _bytes(tree)
    contents = parse(manifest)
    assert contents.file_count == len(tree)
    assert contents.file_size_total == sum(map(len, _bytes(tree).values()))


def test_a_collection_of_many_blocks_and_files_is_put_together_anew_without_comparing_all_with_all() -> None:
    many = 60_000  # squared it would take an hour
    blocks = " ".join(f"{number:032x}+2" for number in range(many))
    folders = "".join(
        f"./d{folder} {blocks} {' '.join(f'{n * 2}:2:f{n}' for n in range(folder, many, 3))}\n" for folder in range(3)
    )
    tree = tree_of(folders)
    assert tree["d1/f1"] == (Piece(f"{1:032x}+2", 0, 2),)
    wanted = replacing.parse({f"/d0/f{n * 3}": f"current/d1/f{n * 3 + 1}" for n in range(MAX_TARGETS)})
    changed = replaced(tree, wanted, {"current": tree})
    assert changed == tree | {f"d0/f{n * 3}": tree[f"d1/f{n * 3 + 1}"] for n in range(MAX_TARGETS)}


def test_a_collection_does_not_grow_without_bound_by_copies_of_its_folders() -> None:
    tree: Tree = {f"d/{number}": () for number in range(MAX_FILES // 100)}
    wanted = replacing.parse({f"/copy{number}": "current/d" for number in range(MAX_TARGETS)})
    with pytest.raises(BadRequestError, match="more than"):
        replaced(tree, wanted, {"current": tree})


@given(_trees(), st.dictionaries(st.sampled_from(["/d0", "/d1", "/d1/d2", "/x", "/x/y"]), st.sampled_from(
    ["", "current/", "current/d0", "current/d1", "current/d1/d2"]), max_size=3))  # fmt: skip
def test_replaced_files_are_those_that_a_simple_copy_makes(tree: Tree, given_targets: dict[str, str]) -> None:
    try:
        wanted = replacing.parse(given_targets)
        found = replaced(tree, wanted, {"current": tree})
    except BadRequestError:
        return
    expected = {path: pieces for path, pieces in tree.items()
                if not any(f"/{path}/".startswith(f"{target}/") for target in given_targets)}  # fmt: skip
    for target, source in given_targets.items():
        folder = source.removeprefix("current/")
        for path, pieces in tree.items() if source else ():
            if not folder or path == folder or path.startswith(f"{folder}/"):
                expected[f"{target[1:]}{'/' if path != folder else ''}{path.removeprefix(folder).lstrip('/')}"] = pieces
    assert found == expected
