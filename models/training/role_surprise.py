"""Fit `role_surprise` on benign traffic, in which it is known who said what.

Legend: s segments, t tokens, w windows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.ngrams import NGrams
from models.role_surprise import RoleSurprise
from models.training.linear import PASSES, fit_logistic, matrix, quantised
from models.training.splices import Splicing, join, splice_tools, take
from models.windowed import check, windows
from models.wordpiece import TokenBags

SYSTEM, USER, ASSISTANT, TOOL = range(4)
"""Roles of segments to learn from; others are left out."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How to fit."""

    segments_max: int = 1000
    """Segments of one tenant and role that the regression sees."""
    splices: int = 28_000
    """Half of them user into tool, half tool into tool."""
    splicing: Splicing = field(default_factory=Splicing)
    weights: tuple[float, float, float, float] = (1.5, 1.5, 0.0, 1.0)
    """Of system, user, assistant and tool; over the root of the segments of the same tenant and role. What counts
    nothing is not learned: models speak like both."""
    placed_min: float = 0.4
    """Share of a window's tokens that must be a user's for it to speak like one."""
    splices_weight: float = 1.5
    """Of a splice's window, over the root of half of the splices."""
    cost: float = 5.0
    """The regression's C: the inverse of what a weight's square costs."""
    passes: int = PASSES


@dataclass(frozen=True, slots=True)
class Beside:
    """Segments (n) that no tenant said, to learn from beside what tenants did."""

    bags: TokenBags
    role: NDArray[np.integer]
    """(n,) one of `SYSTEM` to `TOOL`."""
    share: NDArray[np.float64]
    """(n,) what each counts, where each of a tenant's and role's k segments counts 1/sqrt(k)."""


def fit_role_surprise(
    bags: TokenBags,
    role: NDArray[np.integer],
    tenant: NDArray[np.integer],
    ngrams: NGrams,
    *,
    seed: int,
    beside: Beside | None = None,
    how: Fit = Fit(),
) -> dict[str, NDArray[Any]]:
    """Arrays of a `RoleSurprise`.

    The same segments in whatever order and the same seed give the same bytes. What a tenant's role repeats counts once.

    Parameters
    ----------
    bags, role, tenant
        Benign segments (s): tokens, one of `SYSTEM` to `TOOL` (segments of other roles are left out), and a number.

    Raises
    ------
    ValueError
        Without a segment of a user, or without one of a tool.
    """
    bags, role, tenant = _distinct(bags, role, tenant, np.flatnonzero(how.weights))
    for code, said in ((USER, "a user"), (TOOL, "a tool")):
        if not (role == code).any():
            raise ValueError(f"role surprise needs segments that {said} said; got none in {len(role)} segments.")
    rng = np.random.default_rng(seed)
    arrays = _regression(bags, role, tenant, beside, ngrams, rng, how)
    check(arrays, RoleSurprise.name)
    return arrays


def _distinct(
    bags: TokenBags, role: NDArray[np.integer], tenant: NDArray[np.integer], learned: NDArray[np.intp]
) -> tuple[TokenBags, NDArray[np.int64], NDArray[np.int64]]:
    """Each text that a tenant's role said once, of the roles that are `learned`, in an order of their own."""
    roles = set(learned.tolist())
    offsets = bags.offsets.tolist()
    data = bags.ids.astype("<u2", copy=False).tobytes()
    found: dict[tuple[int, int, bytes], int] = {}
    for row, (whose, code) in enumerate(zip(tenant.tolist(), role.tolist(), strict=True)):
        if code in roles and offsets[row] < offsets[row + 1]:
            found.setdefault((whose, code, data[2 * offsets[row] : 2 * offsets[row + 1]]), row)
    rows = np.array([found[key] for key in sorted(found)], np.int64)
    return take(bags, rows), role[rows].astype(np.int64), tenant[rows].astype(np.int64)


def _regression(
    bags: TokenBags,
    role: NDArray[np.int64],
    tenant: NDArray[np.int64],
    beside: Beside | None,
    ngrams: NGrams,
    rng: np.random.Generator,
    how: Fit,
) -> dict[str, NDArray[Any]]:
    """The regression's arrays: windows of everyone but tools against those of tools, and of user text in tool text."""
    group = np.unique(tenant * 4 + role, return_inverse=True)[1]
    order = rng.permutation(len(role))
    order = order[np.argsort(group[order], kind="stable")]
    place = np.arange(len(order)) - np.searchsorted(group[order], group[order])
    rows = np.sort(order[place < how.segments_max])
    bags, role, group = take(bags, rows), role[rows], group[rows]
    share: NDArray[np.float64] = 1 / np.sqrt(np.bincount(group)[group])
    if beside is not None:
        bags, role = join(bags, beside.bags), np.concatenate([role, beside.role])
        share = np.concatenate([share, beside.share])
    parts, many = _windows(bags)
    plain = np.repeat(role != TOOL, many)
    weight = np.repeat(share * np.array(how.weights)[role] / np.sqrt(many), many)
    user, tool = role == USER, role == TOOL
    spliced, placed, _ = splice_tools(bags, tool, (user, tool), share, how.splices, rng, how.splicing)
    made, positive = _spliced_windows(spliced, placed, how.placed_min)
    weights, constant = fit_logistic(
        matrix(ngrams.features(join(parts, made))),
        np.concatenate([plain, positive]),
        np.concatenate([weight, np.full(len(positive), how.splices_weight * (how.splices / 2) ** -0.5)]),
        cost=how.cost,
        passes=how.passes,
        seed=int(rng.integers(1 << 31)),
    )
    codes, units = quantised(weights)
    return {"weights": codes, "scales": units, "constant": np.array(constant)}


def _windows(bags: TokenBags) -> tuple[TokenBags, NDArray[np.int64]]:
    """Windows (w) of segments, and how many each (s,) has."""
    parts, first = windows(bags)
    return parts, np.diff(first)


def _spliced_windows(
    bags: TokenBags, placed: NDArray[np.bool_], placed_min: float
) -> tuple[TokenBags, NDArray[np.bool_]]:
    """Windows (w) of splices whose first half holds words of users, and whether a window is the user's.

    One that holds a few of a user's words is neither a user's nor a tool's, and is left out.
    """
    parts, many = _windows(bags)
    marks, _ = _windows(TokenBags(placed.astype(np.uint16), bags.offsets))
    total = np.concatenate([np.zeros(1), np.cumsum(marks.ids, dtype=np.float64)])
    share = np.diff(total[marks.offsets]) / np.maximum(np.diff(marks.offsets), 1)
    of_user = np.repeat(np.arange(len(many)) < len(many) // 2, many)
    positive = of_user & (share >= placed_min)
    kept = np.flatnonzero(~of_user | positive | (share == 0))
    return take(parts, kept), positive[kept]
