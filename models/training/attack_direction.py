"""Fit which way attackers' messages lie, on texts that are known to be of either side.

Legend: a texts of attacks, h harmless ones that look like them, o those of tenants' users and tools; d dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CODE_MAX = 32_767


@dataclass(frozen=True, slots=True)
class Fit:
    """How to fit."""

    examples: int = 12_000
    """Texts that are drawn, half of them attacks, a quarter harmless look-alikes, a quarter tenants'."""
    cost: float = 10.0
    """The regression's C."""
    share: float = 0.5
    """Of its log-odds, what counts beside those of n-grams."""


def fit_attack_direction(
    attacks: NDArray[np.int8],
    harmless: NDArray[np.int8],
    ordinary: NDArray[np.int8],
    tenant: NDArray[np.integer],
    *,
    seed: int,
    how: Fit = Fit(),
) -> dict[str, NDArray[Any]]:
    """Arrays of an `AttackDirection`, from vectors (a, d), (h, d) and (o, d), unit rows times 127.

    Parameters
    ----------
    tenant
        (o,) whose each ordinary text is: tenants count the root of their texts.

    Raises
    ------
    ValueError
        Where one of the three has no vector.
    """
    # Training only: a slow import.
    from sklearn.linear_model import LogisticRegression

    sides = (attacks, harmless, ordinary)
    if not all(map(len, sides)):
        raise ValueError(f"a direction needs texts of all three sides; got {[len(side) for side in sides]}.")
    rng = np.random.default_rng(seed)
    counts = (how.examples // 2, how.examples // 4, how.examples // 4)
    share = 1 / np.sqrt(np.bincount(tenant)[tenant])
    odds = (None, None, share / share.sum())
    drawn = [side[rng.choice(len(side), count, p=p)] for side, count, p in zip(sides, counts, odds, strict=True)]
    model = LogisticRegression(C=how.cost, max_iter=200)
    model.fit(np.concatenate(drawn).astype(np.float64) / 127, np.repeat([True, False, False], counts))
    weights = model.coef_[0] / 127 * how.share
    unit = float(np.abs(weights).max()) / _CODE_MAX or 1.0
    return {
        "codes": np.rint(weights / unit).astype(np.int16),
        "unit": np.array(unit),
        "constant": np.array(float(model.intercept_[0]) * how.share),
    }
