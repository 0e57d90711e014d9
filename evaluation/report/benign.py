"""Benign sessions: how many are flagged, whether p means what it says, and what harmless look-alikes do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evaluation.measures import FloatArray, Ranked, curve, share_of
from evaluation.report.figure import ranked, rounded, share
from evaluation.report.model import CalibrationCurve, Curves, Figure, Harmless, Level
from evaluation.report.part import Part, View

LEVELS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1)
FINE = tuple(float(f"{level:.4g}") for level in np.logspace(-3, 0, 31))
"""Levels of the calibration's curve, and false-positive rates of recall's."""
RECALLS = tuple(round(at / 50, 2) for at in range(1, 51))
SOURCE = "source"
"""The slice that says whether a look-alike's source was `seen` or `unseen`."""


def false_positives(view: View) -> Figure:
    """Observed rate at the nominal operating point."""
    part, values = view.part, view.empty()
    for cell in view.cells:
        own = part.reference[cell.rows]
        values[cell.seed_at] = share_of(cell.flagged[own], cell.weights[own])
    return share(part, view.over_seeds(values), part.reference & view.own)


def calibration(view: View) -> tuple[list[Level], CalibrationCurve]:
    """Share of benign sessions whose p is at or below a level."""
    part = view.part
    levels = np.array([*LEVELS, *FINE])
    values = np.stack([view.empty()] * len(levels))
    for cell in view.cells:
        own = part.reference[cell.rows]
        at_or_below = part.rows.p[cell.rows[own]][None, :] <= levels[:, None]
        values[:, cell.seed_at] = _shares(at_or_below, cell.weights[own])
    chosen = part.reference & view.own
    observed = [share(part, view.over_seeds(each), chosen) for each in values]
    fine = observed[len(LEVELS) :]
    named = [Level(nominal=level, observed=each) for level, each in zip(LEVELS, observed, strict=False)]
    return named, CalibrationCurve(
        nominal=list(FINE),
        observed=[each.value for each in fine],
        low=[each.low for each in fine],
        high=[each.high for each in fine],
    )


def _shares(chosen: NDArray[np.bool_], weights: FloatArray) -> NDArray[np.float64]:
    """Weighted share (k, r) of sessions (n,) in each of `chosen` (k, n)."""
    # Sums of whole numbers, exact in float32 up to 2^24.
    part = (chosen.astype(weights.dtype) @ weights).astype(np.float64)
    total = weights.sum(axis=0, dtype=np.float64)
    out = np.full(part.shape, np.nan)
    np.divide(part, total, out=out, where=total > 0)
    return out


def curves(view: View) -> Curves | None:
    """All attacks against all benign sessions, at all thresholds; None where there is nothing to compare."""
    found, part = [], view.part
    for cell in view.cells:
        attacks = cell.scores[part.attack[cell.rows]]
        benign = cell.scores[part.reference[cell.rows]]
        if len(attacks) and len(benign):
            found.append(curve(attacks, benign, np.array(RECALLS), np.array(FINE)))
    if not found:
        return None
    precision = np.mean([each.precision for each in found], axis=0)
    recall = np.mean([each.recall for each in found], axis=0)
    return Curves(
        recall=list(RECALLS),
        precision=[rounded(each) or 0.0 for each in precision.tolist()],
        false_positives=list(FINE),
        recall_at=[rounded(each) or 0.0 for each in recall.tolist()],
    )


def harmless(view: View) -> Iterator[Harmless]:
    """Look-alikes and controls, all of a label first, then by what hides in them; seen sources beside unseen ones."""
    part, own = view.part, view.own
    labels: tuple[tuple[Literal["benign", "control"], NDArray[np.bool_]], ...] = (
        ("benign", part.placed & own),
        ("control", part.control & own),
    )
    for label, of_label in labels:
        for source, of_source in _sources(part, of_label):
            families = part.rows.family
            named = [(families.names[code], families.codes == code) for code in np.unique(families.codes[of_source])]
            yield _harmless(view, label, "all", source, of_source)
            if len(named) > 1:
                for name, of_family in named:
                    yield _harmless(view, label, name or label, source, of_source & of_family)


def _sources(part: Part, chosen: NDArray[np.bool_]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    if not chosen.any():
        return
    told = part.rows.slices.get(SOURCE)
    if told is None:
        yield "", chosen
        return
    for code in np.unique(told.codes[chosen]):
        yield told.names[code] if code >= 0 else "", chosen & (told.codes == code)


def _harmless(
    view: View, label: Literal["benign", "control"], name: str, source: str, chosen: NDArray[np.bool_]
) -> Harmless:
    part, over = view.part, view.over_seeds
    plain = _plain(part, source)
    flagged, at_1, at_5, auroc = (view.empty() for _ in range(4))
    for cell in view.cells:
        own = chosen[cell.rows]
        if not own.any():
            continue
        weights = cell.weights[own]
        order = Ranked.of(cell.scores[own], weights, cell.reference(plain))
        flagged[cell.seed_at] = share_of(cell.flagged[own], weights)
        at_1[cell.seed_at], at_5[cell.seed_at] = order.recall_at(0.01), order.recall_at(0.05)
        auroc[cell.seed_at] = order.auroc()
    return Harmless(
        label=label,
        name=name,
        source=source,
        flagged=share(part, over(flagged), chosen),
        at_1=share(part, over(at_1), chosen),
        at_5=share(part, over(at_5), chosen),
        auroc=ranked(part, over(auroc), chosen),
    )


def _plain(part: Part, source: str) -> NDArray[np.bool_]:
    """Plain rows (n,) of the fit that has, or has not, learned of the source; of all, where they do not tell."""
    told = part.rows.slices.get(SOURCE)
    if told is None or not source:
        return part.plain
    own = part.plain & told.is_one(source)
    return own if own.any() else part.plain
