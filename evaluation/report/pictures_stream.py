"""Pictures of the stream's days and of what each signal is worth."""

from __future__ import annotations

from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from evaluation.report.model import Figure, ProtocolReport, Report, StreamReport, SystemReport
from evaluation.report.part import PRODUCT, kind_of
from evaluation.report.pictures import COLOUR, DASHED, FAILED, GRID, INK, OTHERS, QUIET, Draw, colours, lanes, legend
from evaluation.report.stream import budgeted
from stream.runtime.report.figures import label, styled

_ATTACKS, _DRIFTS, _WRONG = "#2f80c2", "#d99a00", "#9fb3c8"
_SHOWN = (
    ("recall_at_1", "Found at 1 %, points"),
    ("recall_at_5", "Found at 5 %, points"),
    ("auroc", "AUROC, hundredths"),
)


def of_stream(report: Report) -> dict[str, Draw]:
    """Pictures of days and ablations."""
    pictures: dict[str, Draw] = {}
    if any(each.days for each in report.stream.values()):
        pictures["budget"] = partial(budget, report.stream)
    for name, protocol in report.protocols.items():
        if any(each.kind == "ablation" and each.groups for each in protocol.systems.values()):
            pictures[f"ablations-{name}"] = partial(ablations, name, protocol)
    return pictures


# -- days --------------------------------------------------------------------------------------------------------------


@styled()
def budget(stream: dict[str, StreamReport]) -> Picture:
    """Findings of each day against the budget: the product's in detail, then those of all but ablations."""
    picture = Picture((11, 5.6), layout="constrained")
    above, below = picture.subplots(2, 1, sharex=True, height_ratios=(1.35, 1))
    name = budgeted(stream) or next(iter(stream))
    _days(above, stream[name])
    above.set_title(f"{label(name)}: findings a day (bars: mean of seeds; lines: least and greatest seed)")
    shown = {system: each for system, each in stream.items() if kind_of(system) != "ablation"}
    named = colours(list(shown))
    # Nothing is judged in the week that is learned.
    found = [day.day for each in stream.values() for day in each.days if day.findings.value]
    first, last = min(found, default=0), max(found, default=0)
    for system, each in shown.items():
        wide = system in (name, PRODUCT)
        days = [day for day in each.days if day.day >= first]
        below.plot(
            [day.day for day in days], [max(day.findings.value or 0.0, 0.5) for day in days],
            color=named[system], lw=2.4 if wide else 1.2, label=label(system), zorder=4 if wide else 3,
        )  # fmt: skip
    _budget_line(below, stream[name])
    below.set_yscale("log")
    below.grid(color=GRID)
    below.set_title("Beside what one would use instead, on a logarithmic scale")
    below.set_xlabel("day")
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    above.legend(fontsize=8, loc="upper left", ncols=4)
    below.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    below.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    below.yaxis.set_minor_locator(NullLocator())
    below.set_xlim(first - 0.6, last + 0.6)
    legend(picture, below, [label(system) for system in shown])
    return picture


def _days(axes: Axes, stream: StreamReport) -> None:
    days = np.array([day.day for day in stream.days], np.float64)
    findings = np.array([day.findings.value or 0.0 for day in stream.days])
    attacks = np.array([day.attacks.value or 0.0 for day in stream.days])
    drifts = np.array([day.drifts.value or 0.0 for day in stream.days])
    parts = (
        (attacks, _ATTACKS, "on attacks"),
        (drifts, _DRIFTS, "drift"),
        (np.maximum(findings - attacks - drifts, 0.0), _WRONG, "on nothing"),
    )
    base = np.zeros(len(days))
    for values, colour, name in parts:
        axes.bar(days, values, bottom=base, width=0.72, color=colour, label=name)
        base += values
    for at, day in zip(days, stream.days, strict=True):
        if day.findings.low is not None and day.findings.high is not None:
            axes.plot([at, at], [day.findings.low, day.findings.high], color=INK, lw=1.1)
    _budget_line(axes, stream)
    axes.set_ylim(0, max([1.0, *base, *(day.findings.high or 0.0 for day in stream.days)]) * 1.22)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.grid(axis="y", color=GRID)


def _budget_line(axes: Axes, stream: StreamReport) -> None:
    said = "budget"
    for day in stream.days:
        if day.budget is not None:
            axes.plot([day.day - 0.5, day.day + 0.5], [day.budget] * 2, color=FAILED, lw=1.6, label=said, zorder=5)
            said = "_budget"


# -- what each signal is worth -----------------------------------------------------------------------------------------


@styled()
def ablations(name: str, protocol: ProtocolReport) -> Picture:
    """What is lost without each signal, over all attacks, and by rewrite."""
    systems = {system: each for system, each in protocol.systems.items() if each.kind == "ablation"}
    picture = Picture((11, 0.34 * max(len(systems), 4) + 1.4), layout="constrained")
    panels = picture.subplots(1, len(_SHOWN), sharey=True)
    rewrites = [each.name for each in next(iter(systems.values())).groups if each.kind == "rewrite"]
    named = dict(zip(rewrites, OTHERS, strict=False))
    for axes, (which, title) in zip(panels, _SHOWN, strict=True):
        for at, each in enumerate(systems.values()):
            _losses(axes, at, each, which, named)
        axes.axvline(0, color=QUIET, lw=1, ls=DASHED)
        axes.grid(axis="x", color=GRID)
        axes.set_title(title, weight="normal")
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, -1.0), max(high, 1.0))
    lanes(panels[0], [system.removeprefix(f"{PRODUCT}-") for system in systems])
    for axes in panels[1:]:
        axes.tick_params(axis="y", length=0)
    picture.suptitle(f"{label(name)} without each signal: difference to tidegate", x=0.01, ha="left", weight="bold")
    legend(picture, panels[0], ["all attacks"])
    return picture


def _losses(axes: Axes, at: int, system: SystemReport, which: str, named: dict[str, str]) -> None:
    for each in system.groups:
        if each.difference is None or each.kind not in ("all", "rewrite"):
            continue
        figure: Figure = getattr(each.difference, which)
        if figure.value is None:
            continue
        if each.kind == "all":
            axes.barh(at, 100 * figure.value, color=COLOUR, height=0.5, alpha=0.8, label="all attacks")
            if figure.low is not None and figure.high is not None:
                axes.plot([100 * figure.low, 100 * figure.high], [at, at], color=INK, lw=1.1, zorder=3)
        elif each.name in named:
            axes.plot([100 * figure.value], [at], "o", color=named[each.name], ms=4.5, label=label(each.name), zorder=4)
