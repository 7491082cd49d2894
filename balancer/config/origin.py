"""Where each value of a configuration comes from."""

from balancer.config import presets
from balancer.config.errors import Loc
from balancer.config.file import Loaded


class Origins:
    """Answers for one file; see `of`."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        preset = loaded.config.preset
        self._preset = f"preset {preset}" if preset else ""
        leaves = presets.leaves(presets.ARVADOS) if preset == "arvados" else {}
        self._preset_keys = frozenset(loc for loc, value in leaves.items() if value != {})

    def of(self, loc: Loc) -> str:
        """Return `arv-balance.yml:7`, `preset arvados`, the Arvados file, or `default`."""
        document = self._loaded.document
        for here in self._spellings(loc):
            if here in document.spans:
                place = document.place(here)
                variable = " (variable)" if here in document.variables else ""
                return f"{document.path}:{place.line}{variable}"
        return self._from_arvados(loc) or (self._preset if self._is_preset(loc) else "default")

    def _from_arvados(self, loc: Loc) -> str:
        cluster = self._loaded.cluster
        if cluster is None:
            return ""
        is_address = loc[0] == "nodes" and loc[-1] == "url"
        is_capacity = loc[0] == "nodes" and loc[-1] == "capacity" and cluster.nodes[0].capacity > 0
        is_other = loc in (("cluster",), ("health", "token", "arvados"))
        return cluster.path if is_address or is_capacity or is_other else ""

    def _spellings(self, loc: Loc) -> list[Loc]:
        if loc[0] == "nodes" and self._loaded.cluster is not None:
            return [("nodes", "overrides", *loc[1:])]
        return [loc]

    def _is_preset(self, loc: Loc) -> bool:
        if loc[0] == "routes" and len(loc) > 1 and self._preset:
            return loc[:2] not in self._loaded.document.spans and loc[2] in ("name", "match", "to")
        return any(key == loc[: len(key)] for key in self._preset_keys if key[0] != "routes")
