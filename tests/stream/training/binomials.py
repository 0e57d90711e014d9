"""Binomial tails in whole numbers, by which those of scipy are checked."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from itertools import accumulate
from math import comb


def tail(least: int, of: int, share: Fraction) -> Fraction:
    """P(X >= least) for X ~ Binomial(of, share), summed term by term in whole numbers."""
    return tails(of, share)[least]


@cache
def tails(of: int, share: Fraction) -> list[Fraction]:
    a, b = share.as_integer_ratio()
    below = accumulate((comb(of, k) * a**k * (b - a) ** (of - k) for k in range(of + 1)), initial=0)
    return [1 - Fraction(sum_below, b**of) for sum_below in below]
