"""The rows of one protocol, made ready to be drawn: clusters and seeds numbered, systems in the report's order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from evaluation.bootstrap import Draws
from evaluation.measures import Reference
from evaluation.report.columns import Coded, Rows
from evaluation.report.model import GroupKind, Kind

PRODUCT = "tidegate"
PROTOCOLS = ("paired", "splice", "session", "hard_negatives", "stream", "slices")
REWRITES = ("goal", "diverse", "lang", "encoded", "split")
"""What ends a family's name, after a `+`."""
RECORDED = "recorded"
"""The rewrite that is none."""
KINDS: tuple[Kind, ...] = get_args(Kind)
"""In the report's order."""


def kind_of(system: str) -> Kind:
    """What a system is, by its name.

    >>> [kind_of(name) for name in ("tidegate", "tidegate@budget", "tidegate+labels", "tidegate-novelty", "length")]
    ['product', 'budget', 'labels', 'ablation', 'baseline']
    """
    if system == PRODUCT:
        return "product"
    signs: dict[str, Kind] = {"@": "budget", "+": "labels", "-": "ablation"}
    following = system.removeprefix(PRODUCT)[:1] if system.startswith(PRODUCT) else ""
    return signs.get(following, "baseline")


def rewrite_of(family: str) -> str:
    """How a family's injections were rewritten.

    >>> rewrite_of("important+goal"), rewrite_of("a+b")
    ('goal', 'recorded')
    """
    suffix = family.rpartition("+")[2]
    return suffix if "+" in family and suffix in REWRITES else RECORDED


@dataclass(frozen=True, eq=False)
class Part:
    """Rows (n) of one protocol."""

    protocol: str
    rows: Rows
    cluster: NDArray[np.int64]
    """(n,) rows of `draws.clusters`."""
    session: NDArray[np.int64]
    """(n,) equal for the same session, whatever the seed and the system."""
    seeds: list[int]
    systems: list[str]
    """The product first, then by kind and name."""
    draws: Draws

    @classmethod
    def of(cls, rows: Rows, protocol: str, replicates: int) -> Part:
        """Those rows of `rows` that are of `protocol`."""
        own = rows.take(np.flatnonzero(rows.protocol.is_one(protocol)))
        # In one order, whatever that of the rows: sums of floats depend on it.
        keys = (own.score, own.family.codes, own.session.codes, own.tenant.codes, own.seed, own.system.codes)
        own = own.take(np.lexsort(keys))
        session = _numbered(_pairs(own.tenant, own.session))
        # A cluster without a name is a session of its own.
        nameless = np.array([not name for name in own.task.names], np.bool_)[own.task.codes]
        task = own.task.codes.astype(np.int64)
        cluster = _numbered(np.where(nameless, len(own.task.names) + session, task))
        seeds = sorted(set(own.seed.tolist()))
        systems = [own.system.names[code] for code in np.unique(own.system.codes)]
        systems.sort(key=lambda name: (KINDS.index(kind_of(name)), name))
        draws = Draws.make(int(cluster.max(initial=-1)) + 1, len(seeds), replicates, protocol)
        return cls(protocol, own, cluster, session, seeds, systems, draws)

    @cached_property
    def attack(self) -> NDArray[np.bool_]:
        """Rows (n,) of attacks."""
        return self.rows.label.is_one("attack")

    @cached_property
    def benign(self) -> NDArray[np.bool_]:
        """Rows (n,) of benign sessions."""
        return self.rows.label.is_one("benign")

    @cached_property
    def control(self) -> NDArray[np.bool_]:
        """Rows (n,) of controls."""
        return self.rows.label.is_one("control")

    @cached_property
    def placed(self) -> NDArray[np.bool_]:
        """Rows (n,) of benign sessions that hold, or are, something harmless that was placed; beside plain ones."""
        placed = self.benign & ~self.rows.family.is_one("")
        return placed if (self.benign & ~placed).any() else np.zeros_like(placed)

    @cached_property
    def plain(self) -> NDArray[np.bool_]:
        """Rows (n,) of the other benign sessions; where something was placed in all of them, of all."""
        return self.benign & ~self.placed

    @cached_property
    def reference(self) -> NDArray[np.bool_]:
        """Rows (n,) that attacks are compared with, and that the operating point is judged by.

        Without attacks, what was placed in benign sessions is what is judged, and not what it is judged by.
        """
        return self.benign if self.attack.any() else self.plain

    @cached_property
    def groups(self) -> dict[tuple[GroupKind, str], NDArray[np.bool_]]:
        """Attack rows (n,) of each group but slices."""
        found: dict[tuple[GroupKind, str], NDArray[np.bool_]] = {}
        if not self.attack.any():
            return found
        found["all", "all"] = self.attack
        family = self.rows.family
        names = [family.names[code] for code in np.unique(family.codes[self.attack])]
        rewrites = {name: rewrite_of(name) for name in names}
        if set(rewrites.values()) != {RECORDED}:
            for rewrite in (RECORDED, *REWRITES):
                chosen = self._of_families([name for name in names if rewrites[name] == rewrite])
                if chosen.any():
                    found["rewrite", rewrite] = chosen
        for name in names:
            found["family", name] = self._of_families([name])
        for code, name in ((1, "obeyed"), (0, "ignored")):
            chosen = self.attack & (self.rows.obeyed == code)
            if chosen.any():
                found["obeyed", name] = chosen
        return found

    def _of_families(self, names: list[str]) -> NDArray[np.bool_]:
        chosen = np.array([name in set(names) for name in self.rows.family.names], np.bool_)
        return self.attack & chosen[self.rows.family.codes]

    def counted(self, chosen: NDArray[np.bool_]) -> tuple[int, int, int]:
        """Rows, distinct clusters and distinct sessions of `chosen` (n,)."""
        clusters, sessions = (np.count_nonzero(np.bincount(of[chosen])) for of in (self.cluster, self.session))
        return int(np.count_nonzero(chosen)), int(clusters), int(sessions)


@dataclass(frozen=True, eq=False)
class View:
    """One system's rows of a part."""

    part: Part
    system: str

    @cached_property
    def own(self) -> NDArray[np.bool_]:
        """Rows (n,) of the part that are the system's."""
        return self.part.rows.system.is_one(self.system)

    @cached_property
    def cells(self) -> list[Cell]:
        """Its rows of each seed that it was judged in."""
        rows = [np.flatnonzero(self.own & (self.part.rows.seed == seed)) for seed in self.part.seeds]
        return [Cell(self.part, at, own) for at, own in enumerate(rows) if len(own)]

    @property
    def seeds(self) -> list[int]:
        """Those that it was judged in."""
        return [self.part.seeds[cell.seed_at] for cell in self.cells]

    def empty(self) -> NDArray[np.float64]:
        """NaN (s, 1 + r): nothing known of any seed."""
        return np.full((len(self.part.seeds), self.part.draws.seeds.shape[1]), np.nan)

    def over_seeds(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean (1 + r,) over seeds; see `Draws`."""
        return self.part.draws.over_seeds(values)


@dataclass(frozen=True, eq=False)
class Cell:
    """One system's rows (k) of one seed."""

    part: Part
    seed_at: int
    """Row of `Part.seeds`."""
    rows: NDArray[np.int64]
    """(k,) of the part's rows."""

    @cached_property
    def weights(self) -> NDArray[np.float32]:
        """How often each row (k, 1 + r) was drawn."""
        return self.part.draws.clusters[self.part.cluster[self.rows]]

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """Scores (k,) of the rows."""
        return self.part.rows.score[self.rows]

    @cached_property
    def flagged(self) -> NDArray[np.bool_]:
        """Whether each row (k,) was flagged."""
        return self.part.rows.flagged[self.rows]

    @cached_property
    def against(self) -> Reference:
        """What attacks are ranked against."""
        return self.reference(self.part.reference)

    def reference(self, chosen: NDArray[np.bool_]) -> Reference:
        """Rows `chosen` (n,) of the part, those that are the cell's."""
        own = chosen[self.rows]
        return Reference(self.scores[own], self.weights[own])


def _pairs(one: Coded, other: Coded) -> NDArray[np.int64]:
    return one.codes.astype(np.int64) * max(len(other.names), 1) + other.codes


def _numbered(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.unique(keys, return_inverse=True)[1].astype(np.int64).reshape(-1)
