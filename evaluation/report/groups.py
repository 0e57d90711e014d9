"""Attack sessions by group: how one system ranks them, and what it finds at its operating point."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from evaluation.measures import FloatArray, Ranked, Reference, mean_of, precision_of, share_of
from evaluation.report.figure import free, ranked, share
from evaluation.report.model import Difference, Group, GroupKind, Named, Worst
from evaluation.report.part import Cell, View

COMPARED = ("auroc", "average_precision", "recall_at_1", "recall_at_5", "recall")
_MEASURES = (*COMPARED, "precision", "turns", "marked")
Key = tuple[GroupKind, str]
Values = dict[str, NDArray[np.float64]]
"""(s, 1 + r) of each measure: seeds, and replicates after the data as they are."""
_ALL: Key = ("all", "all")
Chosen = Mapping[Key, NDArray[np.bool_]]
"""Attack rows (n,) of the part, by group."""


def group_values(view: View, chosen: Chosen, against: NDArray[np.bool_] | None = None) -> dict[Key, Values]:
    """Measures of one system's rows in each group; NaN in seeds where it has none.

    Parameters
    ----------
    against
        Benign rows (n,) of the part to rank against, and to count as found; None: `Part.reference`.
    """
    benign = view.part.reference if against is None else against
    found: dict[Key, Values] = {key: {name: view.empty() for name in _MEASURES} for key in chosen}
    for cell in view.cells:
        reference = cell.against if against is None else cell.reference(against)
        wrong = cell.weights[cell.flagged & benign[cell.rows]]
        for key, rows in chosen.items():
            own = rows[cell.rows]
            if own.any():
                for name, values in _measured(cell, own, reference, wrong).items():
                    found[key][name][cell.seed_at] = values
    return found


def _measured(cell: Cell, own: NDArray[np.bool_], reference: Reference, wrong: FloatArray) -> Values:
    """(1 + r,) of each measure, of the cell's rows `own` (k,); `wrong` weights are of benign rows that are flagged."""
    weights = cell.weights[own]
    order = Ranked.of(cell.scores[own], weights, reference)
    flagged, turn = cell.flagged[own], cell.part.rows.first_finding_turn[cell.rows[own]]
    found = flagged & (turn >= 0)
    marked = cell.part.rows.marked[cell.rows[own]]
    known = flagged & (marked >= 0)
    return {
        "auroc": order.auroc(),
        "average_precision": order.average_precision(),
        "recall_at_1": order.recall_at(0.01),
        "recall_at_5": order.recall_at(0.05),
        "recall": share_of(flagged, weights),
        "precision": precision_of(weights[flagged], wrong),
        "turns": mean_of(turn[found].astype(np.float64) + 1, weights[found]),
        "marked": share_of(marked[known] == 1, weights[known]),
    }


def group(view: View, key: Key, chosen: NDArray[np.bool_], values: Values, product: Values | None = None) -> Group:
    """Figures of one group of one system.

    Parameters
    ----------
    product
        The product's values of the same group: what the system is compared with.
    """
    part, own = view.part, chosen & view.own
    attacks, clusters, _ = part.counted(own)
    over = {name: view.over_seeds(values[name]) for name in _MEASURES}
    found = own & part.rows.flagged
    return Group(
        kind=key[0],
        name=key[1],
        attacks=attacks,
        clusters=clusters,
        auroc=ranked(part, over["auroc"], own),
        average_precision=ranked(part, over["average_precision"], own),
        recall_at_1=ranked(part, over["recall_at_1"], own),
        recall_at_5=ranked(part, over["recall_at_5"], own),
        recall=share(part, over["recall"], own),
        precision=ranked(part, over["precision"], own),
        turns=free(part, over["turns"], found),
        marked=share(part, over["marked"], found & (part.rows.marked >= 0)),
        difference=None if product is None else _difference(view, values, product, own),
    )


def against_placed(view: View) -> Group | None:
    """All attacks against the benign sessions that hold something harmless alone; None where there are no such."""
    chosen = view.part.groups.get(_ALL)
    if chosen is None or not (view.part.placed & view.own).any():
        return None
    return group(view, _ALL, chosen, group_values(view, {_ALL: chosen}, view.part.placed)[_ALL])


def _difference(view: View, values: Values, product: Values, own: NDArray[np.bool_]) -> Difference:
    # In seeds where both were judged.
    over = {name: view.over_seeds(values[name] - product[name]) for name in COMPARED}
    return Difference(**{name: free(view.part, over[name], own) for name in COMPARED})


def worst(groups: list[Group]) -> Worst | None:
    """The families with the least recall at 1 % false positives and with the least AUROC; None without any."""
    families = [each for each in groups if each.kind == "family" and each.auroc.value is not None]
    if not families:
        return None
    # Of equals the one with the lower AUROC, or recall; of those the first by name.
    by_recall = min(families, key=lambda each: (each.recall_at_1.value or 0.0, each.auroc.value or 0.0, each.name))
    by_auroc = min(families, key=lambda each: (each.auroc.value or 0.0, each.recall_at_1.value or 0.0, each.name))
    return Worst(
        recall_at_1=Named(family=by_recall.name, figure=by_recall.recall_at_1),
        auroc=Named(family=by_auroc.name, figure=by_auroc.auroc),
    )
