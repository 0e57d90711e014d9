"""Fit what a transformer adds, on benign traffic, in which it is known who said what.

Legend: s segments, n examples: some of the segments, and splices of them; d dimensions of a vector.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from models.second_look import Transforms
from models.training.splices import Splicing, join, splice_tools, take
from models.wordpiece import TokenBags

SYSTEM, USER, TOOL = 0, 1, 3
"""Roles of segments to learn from; others are left out."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How to fit; each example takes the transformer some 10 ms of a CPU."""

    segments_max: int = 150
    """Segments of one tenant and role."""
    examples_max: int = 4000
    """Segments of all."""
    splices: int = 3000
    """Half of them user into tool, half tool into tool."""
    splicing: Splicing = field(default_factory=Splicing)
    cost: float = 10.0
    """The regression's C."""
    share: float = 0.5
    """The weight of its log-odds beside role surprise."""


@dataclass(frozen=True, slots=True)
class Looked:
    """Examples (n), as the transformer sees them."""

    vectors: NDArray[np.float32]
    """(n, d)"""
    positive: NDArray[np.bool_]
    """(n,) whether a user or a system prompt speaks."""
    weight: NDArray[np.float64]
    """(n,)"""
    folds: NDArray[np.int64]
    """(n, 2) of what it is made of: bit f is set where a session of fold f holds it."""


def look(
    bags: TokenBags,
    role: NDArray[np.integer],
    tenant: NDArray[np.integer],
    folds: NDArray[np.int64],
    transformer: Transforms,
    *,
    seed: int,
    how: Fit = Fit(),
) -> Looked:
    """Draw examples and let the transformer read them, once for all fits.

    The same segments in whatever order and the same seed give the same examples.

    Parameters
    ----------
    bags, role, tenant
        Benign segments (s): tokens, `SYSTEM`, `USER`, `TOOL` or another role, which is left out, and a number.
    folds
        (s,) bit f is set where a session of fold f holds the segment.
    """
    rng = np.random.default_rng(seed)
    bags, role, tenant, folds = _distinct(bags, role, tenant, folds)
    group = np.unique(tenant * 4 + role, return_inverse=True)[1]
    order = rng.permutation(len(role))
    order = order[np.argsort(group[order], kind="stable")]
    place = np.arange(len(order)) - np.searchsorted(group[order], group[order])
    # Those of every tenant and role come before second ones of any.
    drawn = np.sort(order[np.argsort(place, kind="stable")][: how.examples_max])
    drawn = drawn[np.isin(drawn, order[place < how.segments_max])]
    bags, role, folds, group = take(bags, drawn), role[drawn], folds[drawn], group[drawn]
    share: NDArray[np.float64] = 1 / np.sqrt(np.bincount(group)[group])
    user, tool = role == USER, role == TOOL
    spliced, _, made_of = splice_tools(bags, tool, (user, tool), share, how.splices, rng, how.splicing)
    half = len(made_of) // 2
    return Looked(
        transformer.embed(join(bags, spliced)),
        np.concatenate([role != TOOL, np.arange(2 * half) < half]),
        np.concatenate([share, np.full(2 * half, max(half, 1) ** -0.5)]),
        np.concatenate([np.stack([folds, folds], axis=1), folds[made_of]]),
    )


def fit_second_look(
    looked: Looked, without: int | None, *, gate: float, space_id: str, how: Fit = Fit()
) -> dict[str, NDArray[Any]]:
    """Arrays of a `SecondLook`, learned of what sessions of other folds than `without` hold, or of everything.

    Where one side is missing it adds nothing.
    """
    own = np.int64(0 if without is None else 1 << without)
    kept = np.flatnonzero(((looked.folds & ~own) != 0).all(axis=1))
    weights, constant = np.zeros(looked.vectors.shape[1]), 0.0
    positive = looked.positive[kept]
    if positive.any() and not positive.all():
        weight = looked.weight[kept]
        model = LogisticRegression(C=how.cost, tol=1e-6, max_iter=1000)
        model.fit(looked.vectors[kept].astype(np.float64), positive, sample_weight=weight / weight.mean())
        weights, constant = model.coef_[0], float(model.intercept_[0])
    return {
        "weights": weights.astype(np.float64),
        "constant": np.array(constant),
        "share": np.array(how.share),
        "gate": np.array(gate, np.float64),
        "space": np.frombuffer(space_id.encode(), np.uint8),
    }


def _distinct(
    bags: TokenBags, role: NDArray[np.integer], tenant: NDArray[np.integer], folds: NDArray[np.int64]
) -> tuple[TokenBags, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Each text that a tenant's role said once, in an order of their own, with all its folds."""
    offsets = bags.offsets.tolist()
    data = bags.ids.astype("<u2", copy=False).tobytes()
    found: dict[tuple[int, int, bytes], tuple[int, int]] = {}
    for row, (whose, code, of) in enumerate(zip(tenant.tolist(), role.tolist(), folds.tolist(), strict=True)):
        if code in (SYSTEM, USER, TOOL) and offsets[row] < offsets[row + 1]:
            key = whose, code, data[2 * offsets[row] : 2 * offsets[row + 1]]
            first, others = found.get(key, (row, 0))
            found[key] = first, others | of
    chosen = [found[key] for key in sorted(found)]
    rows = np.array([row for row, _ in chosen], np.int64)
    all_folds = np.array([of for _, of in chosen], np.int64)
    return take(bags, rows), role[rows].astype(np.int64), tenant[rows].astype(np.int64), all_folds
