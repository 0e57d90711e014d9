"""False positives and recall of sessions with one property, beside those of all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from evaluation.measures import Ranked, share_of
from evaluation.report.benign import SOURCE
from evaluation.report.figure import free, rounded, share
from evaluation.report.groups import Key, Values, group, group_values
from evaluation.report.model import Figure, Slice
from evaluation.report.part import Part, View

RATIO_MAX = 2.0
SliceName = tuple[str, str]
"""Name and value."""


def slice_rows(part: Part) -> dict[SliceName, NDArray[np.bool_]]:
    """Rows (n,) of each value of each slice."""
    return {
        (name, column.names[code]): column.codes == code
        for name, column in part.rows.slices.items()
        # A property of look-alikes, which are told by it elsewhere.
        if name != SOURCE
        for code in np.unique(column.codes)
        if code >= 0
    }


def slice_values(view: View, *, rewrites: bool) -> dict[SliceName, dict[Key, Values]]:
    """Measures of a system's attacks in each slice, and in each rewrite of it."""
    return {
        name: group_values(view, _attacks(view.part, name, inside, rewrites))
        for name, inside in slice_rows(view.part).items()
    }


def slices(
    view: View, values: dict[SliceName, dict[Key, Values]], product: dict[SliceName, dict[Key, Values]] | None
) -> Iterator[Slice]:
    """Figures of each slice that the system has sessions of.

    Parameters
    ----------
    values, product
        `slice_values` of the system, and of whom it is compared with.
    """
    part, everything = view.part, view.part.reference & view.own
    overall = _rates(view, everything)
    for name, inside in slice_rows(part).items():
        benign = everything & inside
        attacks = _attacks(part, name, inside & view.own, rewrites=len(values[name]) > 1)
        if not benign.any() and not attacks:
            continue
        rates = _rates(view, benign)
        flagged, at_5 = (share(part, view.over_seeds(each), benign) for each in rates)
        ratios = [_ratio(view, one, of, benign) for one, of in zip(rates, overall, strict=True)]
        compared = {} if product is None else product[name]
        groups = [group(view, key, rows, values[name][key], compared.get(key)) for key, rows in attacks.items()]
        rows, clusters, _ = part.counted(benign)
        yield Slice(
            name=name[0],
            value=name[1],
            benign=rows,
            clusters=clusters,
            flagged=flagged,
            at_5=at_5,
            flagged_ratio=ratios[0],
            at_5_ratio=ratios[1],
            above_twice=above_twice(ratios),
            attacks=next((each for each in groups if each.kind == "slice"), None),
            rewrites=[each for each in groups if each.kind == "rewrite"],
        )


def above_twice(ratios: Sequence[Figure]) -> Literal["no", "maybe", "yes"]:
    """Whether one of `ratios` is above 2, and whether beyond its interval."""
    if any(each.low is not None and each.low > RATIO_MAX for each in ratios):
        return "yes"
    return "maybe" if any((each.value or 0.0) > RATIO_MAX for each in ratios) else "no"


def _attacks(part: Part, name: SliceName, inside: NDArray[np.bool_], rewrites: bool) -> dict[Key, NDArray[np.bool_]]:
    """Attack rows (n,) of a slice, and by rewrite, where there are any."""
    chosen: dict[Key, NDArray[np.bool_]] = {("slice", f"{name[0]}: {name[1]}"): part.attack & inside}
    if rewrites:
        chosen |= {key: rows & inside for key, rows in part.groups.items() if key[0] == "rewrite"}
    return {key: rows for key, rows in chosen.items() if rows.any()}


def _rates(view: View, chosen: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(s, 1 + r) shares of benign sessions `chosen` (n,): flagged, and found where 5 % of all are."""
    flagged, at_5 = view.empty(), view.empty()
    for cell in view.cells:
        own = chosen[cell.rows]
        if own.any():
            weights = cell.weights[own]
            flagged[cell.seed_at] = share_of(cell.flagged[own], weights)
            at_5[cell.seed_at] = Ranked.of(cell.scores[own], weights, cell.against).recall_at(0.05)
    return flagged, at_5


def _ratio(view: View, own: NDArray[np.float64], everything: NDArray[np.float64], chosen: NDArray[np.bool_]) -> Figure:
    """Ratio of two rates (s, 1 + r), means over the seeds in which the slice is; none where nobody was flagged."""
    top, below = view.over_seeds(own), view.over_seeds(np.where(np.isnan(own), np.nan, everything))
    values = np.full(len(top), np.nan)
    np.divide(top, below, out=values, where=below > 0)
    found = free(view.part, values, chosen)
    if found.value == found.high == 0.0:
        # No replicate has one: the rate's own upper end, by what all have.
        high = share(view.part, top, chosen).high
        return msgspec.structs.replace(found, high=None if high is None else rounded(high / below[0]), by="binomial")
    return found
