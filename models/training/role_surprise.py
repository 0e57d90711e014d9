"""Fit `role_surprise` on benign traffic, in which it is known who said what.

Legend: s segments, t tokens, V the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.ngrams import NGrams
from models.role_surprise import BIGRAM_BITS, STEPS, check, hashed_bigrams, tokens_before
from models.training.linear import fit_logistic, matrix, quantised
from models.training.splices import Splicing, join, splice_tools, take
from models.wordpiece import TokenBags

SYSTEM, USER, ASSISTANT, TOOL = range(4)
"""Roles of segments to learn from; others are left out."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How to fit."""

    segments_max: int = 1000
    """Segments of one tenant and role that the regression sees."""
    splices: int = 14_000
    """Half of them user into tool, half tool into tool."""
    splicing: Splicing = field(default_factory=Splicing)
    weights: tuple[float, float, float, float] = (1.5, 1.5, 0.5, 1.0)
    """Of system, user, assistant and tool; over the root of the segments of the same tenant and role."""
    cost: float = 10.0
    """The regression's C: the inverse of what a weight's square costs."""
    pseudo_count: float = 4.0
    """Occurrences that a bigram's unigram estimate is worth."""
    common: float = 2000.0
    """Occurrences from which a token's own likelihood ratio counts more than half: rarer ones are names and topics."""
    ratio_share: float = 0.25
    """The likelihood ratio's weight beside the regression."""
    bigrams_max: int = 400_000
    """Bigrams whose counts are kept for a later training, the most frequent."""


def fit_role_surprise(
    bags: TokenBags,
    role: NDArray[np.integer],
    tenant: NDArray[np.integer],
    ngrams: NGrams,
    *,
    seed: int,
    base: Mapping[str, NDArray[Any]] | None = None,
    how: Fit = Fit(),
) -> dict[str, NDArray[Any]]:
    """Arrays of a `RoleSurprise`.

    The same segments in whatever order and the same seed give the same bytes. What a tenant's role repeats counts once.

    Parameters
    ----------
    bags, role, tenant
        Benign segments (s): tokens, one of `SYSTEM` to `TOOL` (segments of other roles are left out), and a number.
    base
        Arrays of an earlier release: its counts of words are added to these. The regression is fitted anew.

    Raises
    ------
    ValueError
        Without a segment of a user, or without one of a tool.
    """
    bags, role, tenant = _distinct(bags, role, tenant)
    for code, said in ((USER, "a user"), (TOOL, "a tool")):
        if not (role == code).any():
            raise ValueError(f"role surprise needs segments that {said} said; got none in {len(role)} segments.")
    rng = np.random.default_rng(seed)
    arrays = _ratio(_counts(bags, role, len(ngrams.masks), base, how), how)
    arrays.update(_regression(bags, role, tenant, ngrams, rng, how))
    check(arrays)
    return arrays


def _distinct(
    bags: TokenBags, role: NDArray[np.integer], tenant: NDArray[np.integer]
) -> tuple[TokenBags, NDArray[np.int64], NDArray[np.int64]]:
    """Each text that a tenant's role said once, in an order of their own."""
    offsets = bags.offsets.tolist()
    data = bags.ids.astype("<u2", copy=False).tobytes()
    found: dict[tuple[int, int, bytes], int] = {}
    for row, (whose, code) in enumerate(zip(tenant.tolist(), role.tolist(), strict=True)):
        if SYSTEM <= code <= TOOL and offsets[row] < offsets[row + 1]:
            found.setdefault((whose, code, data[2 * offsets[row] : 2 * offsets[row + 1]]), row)
    rows = np.array([found[key] for key in sorted(found)], np.int64)
    return take(bags, rows), role[rows].astype(np.int64), tenant[rows].astype(np.int64)


def _counts(
    bags: TokenBags, role: NDArray[np.int64], size: int, base: Mapping[str, NDArray[Any]] | None, how: Fit
) -> dict[str, NDArray[Any]]:
    """How often users and tools said what, here and in `base`."""
    said = np.repeat(role, np.diff(bags.offsets))
    before = tokens_before(bags)
    pairs = before * size + bags.ids
    keys, number = np.unique(pairs, return_inverse=True)
    by_role = [np.bincount(number[said == code], minlength=len(keys)) for code in (USER, TOOL)]
    singles = [np.bincount(bags.ids[said == code], minlength=size) for code in (USER, TOOL)]
    if base is not None:
        keys, number = np.unique(np.concatenate([keys, base["counts.keys"].astype(np.int64)]), return_inverse=True)
        by_role = [
            np.bincount(number, np.concatenate([new, old]), len(keys)).astype(np.int64)
            for new, old in zip(by_role, base["counts.bigrams"], strict=True)
        ]
        singles = [new + base[name] for new, name in zip(singles, ("counts.user", "counts.tool"), strict=True)]
    pairs_of = np.stack(by_role)
    total = pairs_of.sum(axis=0)
    kept = np.sort(np.argsort(-total, kind="stable")[: how.bigrams_max])
    kept = kept[total[kept] > 0]
    return {
        "counts.user": singles[0].astype(np.uint32),
        "counts.tool": singles[1].astype(np.uint32),
        "counts.keys": keys[kept].astype(np.uint32),
        "counts.bigrams": pairs_of[:, kept].astype(np.uint32),
    }


def _ratio(counts: dict[str, NDArray[Any]], how: Fit) -> dict[str, NDArray[Any]]:
    """The tables of the likelihood ratio that the counts make, and the counts.

    A bigram ab has p(b|a) = (n(ab) + k p(b)) / (n(a) + k), k the pseudo-count. Its ratio is taken apart: what b adds,
    what a adds, and what the pair does beyond them, which is 0 for a pair never seen.
    """
    user, tool = (counts[name].astype(np.float64) for name in ("counts.user", "counts.tool"))
    size = len(user)
    p_user, p_tool = ((said + 0.5) / (said.sum() + 0.5 * size) for said in (user, tool))
    seen = user + tool
    share = seen / (seen + how.common)
    unigrams = np.log(p_user / p_tool) * share
    middle = np.sqrt(p_user * p_tool)
    prior_user, prior_tool = (how.pseudo_count * middle * np.exp(sign * unigrams / 2) for sign in (1, -1))
    before, token = np.divmod(counts["counts.keys"].astype(np.int64), size)
    by_user, by_tool = counts["counts.bigrams"].astype(np.float64)
    pairs = np.log1p(by_user / prior_user[token]) - np.log1p(by_tool / prior_tool[token])
    after_user, after_tool = (
        np.bincount(before, said, minlength=size + 1) + how.pseudo_count for said in (by_user, by_tool)
    )
    # Of the pairs that share a hash the most frequent has it.
    order = np.argsort(by_user + by_tool, kind="stable")
    bigrams = np.zeros(1 << BIGRAM_BITS, np.int8)
    bigrams[hashed_bigrams(before, token)[order]] = _steps(pairs, np.int8)[order]
    return {
        **counts,
        "unigrams": _steps(unigrams, np.int16),
        "contexts": _steps(np.log(after_tool / after_user), np.int16),
        "bigrams": bigrams,
        "ratio_share": np.array(how.ratio_share),
    }


def _steps(nats: NDArray[np.float64], dtype: type[np.integer]) -> NDArray[Any]:
    largest = np.iinfo(dtype).max
    return np.clip(np.rint(nats * STEPS), -largest, largest).astype(dtype)


def _regression(
    bags: TokenBags,
    role: NDArray[np.int64],
    tenant: NDArray[np.int64],
    ngrams: NGrams,
    rng: np.random.Generator,
    how: Fit,
) -> dict[str, NDArray[Any]]:
    """The regression's arrays: everyone but tools against tools, and user against tool text inside tool text."""
    group = np.unique(tenant * 4 + role, return_inverse=True)[1]
    order = rng.permutation(len(role))
    order = order[np.argsort(group[order], kind="stable")]
    place = np.arange(len(order)) - np.searchsorted(group[order], group[order])
    rows = np.sort(order[place < how.segments_max])
    bags, role, group = take(bags, rows), role[rows], group[rows]
    share: NDArray[np.float64] = 1 / np.sqrt(np.bincount(group)[group])
    user, tool = role == USER, role == TOOL
    spliced, made_of = splice_tools(bags, tool, (user, tool), share, how.splices, rng, how.splicing)
    positive = np.arange(len(made_of)) < len(made_of) // 2
    weight = share * np.array(how.weights)[role]
    weights, constant = fit_logistic(
        matrix(ngrams.features(join(bags, spliced))),
        np.concatenate([role != TOOL, positive]),
        np.concatenate([weight, np.full(len(positive), (how.splices / 2) ** -0.5)]),
        cost=how.cost,
        seed=int(rng.integers(1 << 31)),
    )
    codes, units = quantised(weights)
    return {"weights": codes, "scales": units, "constant": np.array(constant)}
