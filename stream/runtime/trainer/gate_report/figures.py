"""Pictures of a gate's decision: rates, slices, scores, labels. The same report gives the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from stream.runtime.report.figures import as_svg, label, styled
from stream.training.gate import GateReport, ReleaseFigures, Slice
from stream.training.proportions import Interval

CHAMPION, CHALLENGER = "#7b8794", "#2f80c2"
SLICES_SHOWN = 40
"""Of each picture, the largest ones: they are what is judged."""
_INK, _QUIET, _FAILED, _LIMIT = "#1f2933", "#7b8794", "#c01f3a", "#c01f3a"
_DASHED = (0, (4, 3))
_FLOOR = 1e-3
"""Least share on a logarithmic axis: what is below is drawn there."""


def draw(report: GateReport) -> Iterator[tuple[str, str]]:
    """Name and SVG of each picture that the report has something for."""
    pictures: dict[str, Callable[[], Figure]] = {"operating": lambda: operating(report)}
    for name, rows in (("recall", _of_attacks(report)), ("flagged", _of_benign(report))):
        if rows:
            pictures[name] = partial(slices, report, name, rows)
    if report.labels is not None and any(analyst.labels for analyst in report.labels.analysts):
        pictures["labels"] = lambda: analysts(report)
    for name, picture in pictures.items():
        with styled():
            yield name, as_svg(picture())


# -- both releases -----------------------------------------------------------------------------------------------------


@styled()
def operating(report: GateReport) -> Figure:
    """Attacks found against benign sessions flagged, and how both lie on the scale of p."""
    figure = Figure((11, 4.3), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.2))
    for release, colour, width in _both(report):
        flagged = np.maximum(release.flagged_at, _FLOOR)
        left.plot(flagged, release.recall_at, color=colour, lw=width, label=_named(report, release))
        at = release.flagged / max(report.benign, 1), release.found / max(report.attacks, 1)
        left.plot([max(at[0], _FLOOR)], [at[1]], "o", color=colour, ms=6, zorder=4)
    left.axvline(report.session_fpr, color=_LIMIT, lw=1, ls=_DASHED)
    left.set(xscale="log", xlim=(_FLOOR * 0.9, 1), ylim=(0, 1.03))
    left.xaxis.set_major_formatter(FuncFormatter(_percent))
    left.xaxis.set_minor_formatter(NullFormatter())
    left.yaxis.set_major_formatter(FuncFormatter(_percent))
    left.grid(color="#eef1f4")
    left.set_title("Attacks found, by benign sessions flagged")
    left.set_xlabel("share of benign held-out sessions flagged (dashed: the operating point)")
    left.legend(fontsize=8, loc="lower right")
    _rarities(right, report)
    return figure


def _rarities(axes: Axes, report: GateReport) -> None:
    """How rare sessions are: benign ones below the line, attacks above."""
    for release, colour, width in _both(report):
        bars = len(release.attack_rarity)
        edges = np.arange(bars + 1) / 2
        above = np.array(release.attack_rarity) / max(sum(release.attack_rarity), 1)
        below = -np.array(release.benign_rarity) / max(sum(release.benign_rarity), 1)
        fill = release is report.challenger
        for counts in (above, below):
            axes.stairs(counts, edges, color=colour, lw=width, fill=fill, alpha=0.35 if fill else 1.0)
            if fill:
                axes.stairs(counts, edges, color=colour, lw=width)
    axes.axhline(0, color=_INK, lw=0.8)
    axes.axvline(-np.log10(report.session_fpr), color=_LIMIT, lw=1, ls=_DASHED)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(100 * value):g} %"))
    axes.set_title("Labelled attacks above, benign sessions below")
    axes.set_xlabel("−log₁₀ of a session's least p, the last bar open (dashed: the operating point)")
    axes.annotate("attacks", (0.5, 0.97), xycoords="axes fraction", ha="center", va="top", color=_QUIET, fontsize=8)
    axes.annotate("benign", (0.5, 0.03), xycoords="axes fraction", ha="center", va="bottom", color=_QUIET, fontsize=8)


def _both(report: GateReport) -> tuple[tuple[ReleaseFigures, str, float], ...]:
    return (report.champion, CHAMPION, 1.6), (report.challenger, CHALLENGER, 1.8)


def _named(report: GateReport, release: ReleaseFigures) -> str:
    role = "challenger" if release is report.challenger else "champion"
    return f"{role} {label(release.release)}"


# -- slices ------------------------------------------------------------------------------------------------------------


def _of_attacks(report: GateReport) -> list[Slice]:
    return _shown([each for each in report.slices if each.attacks], lambda each: each.attacks)


def _of_benign(report: GateReport) -> list[Slice]:
    return _shown([each for each in report.slices if each.benign], lambda each: each.benign)


def _shown(rows: Sequence[Slice], size: Callable[[Slice], int]) -> list[Slice]:
    """The largest, and whatever has failed, in the report's order."""
    largest = sorted(rows, key=lambda each: (not each.failed, -size(each)))[:SLICES_SHOWN]
    chosen = {id(each) for each in largest}
    return [each for each in rows if id(each) in chosen]


@styled()
def slices(report: GateReport, which: str, rows: Sequence[Slice]) -> Figure:
    """A bar for each slice with its interval, the champion's mark beside it."""
    attacks = which == "recall"
    figure = Figure((11, 0.27 * len(rows) + 1.1), layout="constrained")
    axes = figure.subplots()
    end = 1.0 if attacks else _end(report, rows)
    for at, each in enumerate(rows):
        _bar(axes, at, each, attacks, end)
    overall = report.challenger.found / max(report.attacks, 1)
    if not attacks:
        overall = report.challenger.flagged / max(report.benign, 1)
        axes.axvline(report.session_fpr, color=_LIMIT, lw=1, ls=_DASHED)
    axes.axvline(overall, color=CHALLENGER, lw=1)
    axes.set_yticks(range(len(rows)), [f"{each.key}  {label(each.value)}" for each in rows])
    for tick, each in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_color(_FAILED if each.failed else _INK if _judged(each, attacks) else _QUIET)
    axes.set(xlim=(0, end * 1.18), ylim=(len(rows) - 0.4, -0.6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: "" if value > end * 1.001 else f"{100 * value:g} %"))
    axes.tick_params(axis="y", length=0)
    title = "Labelled attacks found" if attacks else "Benign held-out sessions flagged"
    more = "" if attacks else "; dashed: the operating point"
    axes.set_title(f"{title}: bars and 95 % intervals are the challenger's, | the champion's; line: all{more}")
    return figure


def _bar(axes: Axes, at: int, each: Slice, attacks: bool, end: float) -> None:
    before, after, of, interval = _counted(each, attacks)
    share = after / of
    axes.barh(
        at,
        share,
        color=_FAILED if each.failed else CHALLENGER,
        height=0.62,
        alpha=0.8 if _judged(each, attacks) else 0.3,
    )
    low, high = interval
    axes.plot([low, min(high, end)], [at, at], color=_INK, lw=1.1)
    axes.plot([before / of], [at], "|", color=CHAMPION, ms=12, mew=2.4, zorder=4)
    axes.annotate(f" {before} → {after} of {of}", (end, at), va="center", color=_QUIET, fontsize=8)


def _judged(each: Slice, attacks: bool) -> bool:
    return each.recall_judged if attacks else each.flagged_judged


def _counted(each: Slice, attacks: bool) -> tuple[int, int, int, Interval]:
    if attacks:
        return each.found_champion, each.found_challenger, each.attacks, each.recall_interval
    return each.flagged_champion, each.flagged_challenger, each.benign, each.flagged_interval


def _end(report: GateReport, rows: Sequence[Slice]) -> float:
    """Where the axis of shares ends: past every bar of a judged slice, not past intervals of three sessions."""
    shares = [max(each.flagged_champion, each.flagged_challenger) / each.benign for each in rows]
    judged = [each.flagged_interval[1] for each in rows if each.flagged_judged]
    return min(1.0, 1.05 * max([report.session_fpr * 3, *shares, *judged]))


# -- labels ------------------------------------------------------------------------------------------------------------


@styled()
def analysts(report: GateReport) -> Figure:
    """Of each analyst the share of labels that all others contradict."""
    assert report.labels is not None
    rows = [each for each in report.labels.analysts if each.labels]
    figure = Figure((11, 0.3 * max(len(rows), 3) + 1.0), layout="constrained")
    axes = figure.subplots()
    shares = [each.contradicted / each.labels for each in rows]
    end = max([report.labels.noise_max * 1.2, *shares, *(each.others for each in rows)]) * 1.02
    colours = [_FAILED if each.set_aside else CHALLENGER for each in rows]
    axes.barh(range(len(rows)), shares, color=colours, height=0.6, alpha=0.85)
    for at, each in enumerate(rows):
        axes.plot([each.others], [at], "|", color=CHAMPION, ms=12, mew=2.4, zorder=4)
        axes.annotate(f" {each.contradicted} of {each.labels}", (end, at), va="center", color=_QUIET, fontsize=8)
    axes.axvline(report.labels.noise_max, color=_LIMIT, lw=1, ls=_DASHED)
    axes.set_yticks(range(len(rows)), [label(each.analyst) for each in rows])
    axes.set(xlim=(0, end * 1.12), ylim=(max(len(rows), 3) - 0.4, -0.6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: "" if value > end * 1.001 else f"{100 * value:g} %"))
    axes.tick_params(axis="y", length=0)
    axes.set_title(
        "Labels that all others contradict; | of the others' own, by the same model; dashed: what is let pass"
    )
    return figure


def _percent(value: float, _: Any) -> str:
    return f"{100 * value:g} %"
