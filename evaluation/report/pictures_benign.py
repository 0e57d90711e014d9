"""Pictures of what happens to benign sessions: calibration, slices, look-alikes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from evaluation.report.model import Figure, Harmless, ProtocolReport, Report, Slice
from evaluation.report.part import PRODUCT
from evaluation.report.pictures import (
    COLOUR,
    DASHED,
    FAILED,
    GRID,
    INK,
    LABELS,
    QUIET,
    Draw,
    beside,
    colours,
    lanes,
    legend,
    shares,
    whisker,
)
from stream.runtime.report.figures import label, styled

SLICES_SHOWN = 60
DOUBTED = "#d99a00"
"""A slice above twice the rate of all, within chance."""
SOURCES = {"seen": LABELS, "unseen": "#d99a00", "": COLOUR}


def of_benign(report: Report) -> dict[str, Draw]:
    """Pictures of false positives."""
    judged = {name: each for name, each in report.protocols.items() if PRODUCT in each.systems}
    pictures: dict[str, Draw] = {}
    if judged:
        pictures["calibration"] = partial(calibration, judged, report.nominal)
    for name, protocol in judged.items():
        own = protocol.systems[PRODUCT]
        if own.slices:
            pictures[f"slices-{name}"] = partial(slices, name, own.slices, own.false_positives, report.nominal)
        if [each for each in own.harmless if each.label == "benign"]:
            pictures[f"harmless-{name}"] = partial(harmless, name, protocol, report.nominal)
    return pictures


# -- calibration -------------------------------------------------------------------------------------------------------


@styled()
def calibration(protocols: dict[str, ProtocolReport], nominal: float) -> Picture:
    """Observed against nominal rates, a panel for each protocol."""
    columns = min(3, len(protocols))
    rows = -(-len(protocols) // columns)
    picture = Picture((11, 3.5 * rows + 0.5), layout="constrained")
    grid = picture.subplots(rows, columns, squeeze=False).ravel()
    systems = list(dict.fromkeys(name for each in protocols.values() for name in beside(each)))
    named = colours(systems)
    for axes, (name, protocol) in zip(grid, protocols.items(), strict=False):
        _calibration(axes, protocol, named, nominal)
        axes.set_title(f"{label(name)}: {protocol.systems[PRODUCT].false_positives.clusters} conversations")
    for axes in grid[len(protocols) :]:
        axes.set_visible(False)
    for axes in grid[:: max(columns, 1)]:
        axes.set_ylabel("benign sessions observed")
    legend(picture, grid[0], [label(system) for system in systems])
    return picture


def _calibration(axes: Axes, protocol: ProtocolReport, named: dict[str, str], nominal: float) -> None:
    floor = 5e-4
    for system, each in beside(protocol).items():
        drawn = each.calibration_curve
        observed = np.array([np.nan if value is None else max(value, floor) for value in drawn.observed])
        wide = each.kind == "product"
        style: dict[str, Any] = {"color": named[system], "lw": 2.4 if wide else 1.1, "zorder": 4 if wide else 3}
        if wide:
            low, high = (
                np.array([np.nan if end is None else max(end, floor) for end in ends])
                for ends in (drawn.low, drawn.high)
            )
            axes.fill_between(drawn.nominal, low, high, color=named[system], alpha=0.16, lw=0)
        axes.plot(drawn.nominal, observed, label=label(system), **style)
    axes.plot([1e-3, 1], [1e-3, 1], color=QUIET, lw=1, ls=DASHED)
    axes.axvline(nominal, color=FAILED, lw=1)
    axes.set(xscale="log", yscale="log", xlim=(1e-3, 1), ylim=(floor, 1.2))
    shares(axes)
    shares(axes, vertical=True)
    axes.grid(color=GRID)


# -- slices ------------------------------------------------------------------------------------------------------------


@styled()
def slices(name: str, rows: Sequence[Slice], overall: Figure, nominal: float) -> Picture:
    """False positives and recall of each slice, with intervals."""
    rows = _most(rows)
    picture = Picture((11, 0.27 * max(len(rows), 4) + 1.2), layout="constrained")
    # Without attacks the right half stays white, so that shares are drawn on one scale in all protocols.
    left, right = picture.subplots(1, 2, sharey=True, width_ratios=(1.25, 1))
    right.set_visible(any(each.attacks for each in rows))
    rate = overall.value or 0.0
    end = _end(rows, rate, nominal)
    for at, each in enumerate(rows):
        colour = {"yes": FAILED, "maybe": DOUBTED}.get(each.above_twice, COLOUR)
        left.barh(at, each.flagged.value or 0.0, color=colour, height=0.62, alpha=0.85)
        whisker(left, each.flagged, at, end=end)
        said = f" {each.benign:,} in {each.clusters:,} tasks" if each.benign else " none"
        left.annotate(said, (end, at), va="center", color=QUIET, fontsize=7.5)
        if each.attacks:
            right.barh(at, each.attacks.recall_at_1.value or 0.0, color=COLOUR, height=0.62, alpha=0.85)
            whisker(right, each.attacks.recall_at_1, at)
    left.axvline(rate, color=COLOUR, lw=1)
    left.axvline(2 * rate, color=FAILED, lw=1, ls=DASHED)
    left.set_xlim(0, end * 1.32)
    ticks = left.get_xticks()
    left.set_xticks(ticks[(ticks >= 0) & (ticks <= end)])
    right.set_xlim(0, 1.02)
    for axes in (left, right):
        axes.grid(axis="x", color=GRID)
        shares(axes)
    lanes(left, [f"{each.name}: {each.value}" for each in rows])
    for tick, each in zip(left.get_yticklabels(), rows, strict=True):
        tick.set_color(INK if each.above_twice == "no" else FAILED)
    left.set_title(f"{label(name)}: benign sessions flagged (line: all, dashed: twice that)")
    right.tick_params(axis="y", length=0)
    right.set_title("Attacks found at 1 % false positives")
    return picture


def _most(rows: Sequence[Slice]) -> list[Slice]:
    """Of very many the largest, and whatever is above twice."""
    kept = sorted(rows, key=lambda each: (each.above_twice == "no", -each.benign))[:SLICES_SHOWN]
    return [each for each in rows if each in kept]


def _end(rows: Sequence[Slice], rate: float, nominal: float) -> float:
    """Where the axis ends: past every bar, not past intervals of three sessions."""
    highs = sorted(each.flagged.high or 0.0 for each in rows)
    typical = highs[int(0.8 * (len(highs) - 1))] if highs else 0.0
    return min(1.0, 1.05 * max([2.5 * rate, 2 * nominal, typical, *(each.flagged.value or 0.0 for each in rows)]))


# -- look-alikes -------------------------------------------------------------------------------------------------------


@styled()
def harmless(name: str, protocol: ProtocolReport, nominal: float) -> Picture:
    """Look-alikes that are flagged: by system, and by what they are."""
    own = [each for each in protocol.systems[PRODUCT].harmless if each.label == "benign" and each.name != "all"]
    kinds = list(dict.fromkeys(each.name for each in own)) or ["all"]
    systems = list(protocol.systems)
    picture = Picture((11, 0.36 * max(len(kinds), len(systems), 4) + 1.4), layout="constrained")
    left, right = picture.subplots(1, 2)
    for at, system in enumerate(systems):
        every = [each for each in protocol.systems[system].harmless if (each.label, each.name) == ("benign", "all")]
        _dots(left, at, every)
    for at, kind in enumerate(kinds):
        _dots(right, at, [each for each in own if each.name == kind])
    for axes in (left, right):
        axes.axvline(nominal, color=FAILED, lw=1, ls=DASHED)
        axes.grid(axis="x", color=GRID)
        axes.set_xlim(left=0)
        shares(axes)
    lanes(left, systems)
    lanes(right, kinds)
    left.set_title(f"{label(name)}: flagged (dashed: nominal)")
    right.set_title("By what they are, tidegate")
    legend(picture, left)
    return picture


def _dots(axes: Axes, at: int, rows: Sequence[Harmless]) -> None:
    for number, each in enumerate(rows):
        height = at + (number - (len(rows) - 1) / 2) * 0.28
        colour = SOURCES.get(each.source, COLOUR)
        whisker(axes, each.flagged, height, colour)
        said = f"source {label(each.source)}" if each.source else "source not told"
        axes.plot([each.flagged.value or 0.0], [height], "o", color=colour, ms=5.5, label=said, zorder=4)
