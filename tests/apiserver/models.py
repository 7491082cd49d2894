"""What the permission table and the priorities have to be, worked out the plain way."""

from collections.abc import Iterable, Sequence

Edge = tuple[str, str, int]


def expected_permissions(users: Iterable[str], edges: Sequence[Edge]) -> set[tuple[str, str, int]]:
    """Follow edges from every user; a user other than oneself is passed only with level 3."""
    out: dict[str, list[tuple[str, int]]] = {}
    for tail, head, level in edges:
        out.setdefault(tail, []).append((head, level))
    found = set()
    for user in users:
        best: dict[str, int] = {}
        todo = [(user, 3)]
        while todo:
            node, level = todo.pop()
            if best.get(node, 0) >= level:
                continue
            best[node] = level
            if node[6:11] != "tpzed" or level == 3:
                todo += [(head, min(level, edge)) for head, edge in out.get(node, [])]
        found |= {(user, target, level) for target, level in best.items()}
    return found


Request = tuple[str | None, str | None, int, int]


def expected_priorities(containers: Iterable[str], requests: Sequence[Request]) -> dict[str, int]:
    """Return container priorities; a request is (container, asking container, priority, created ms)."""
    known = set(containers)
    priorities = dict.fromkeys(known, 0)
    for _ in range(len(known) + 1):
        for container in known:
            candidates = [0]
            for wanted, asking, priority, created in requests:
                if wanted == container and priority > 0:
                    candidates.append(priorities.get(asking, 0) if asking else priority * 2**50 - created)
            priorities[container] = max(candidates)
    return priorities
