"""Pictures of the report: attacks found, by system, by family and by threshold. The same report, the same bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import FuncFormatter, NullLocator

from evaluation.report.model import Figure, Group, ProtocolReport, Report, SystemReport
from evaluation.report.part import PRODUCT
from stream.runtime.report.figures import as_png, as_svg, label, styled

INK, QUIET, GRID, EDGE, FAILED = "#1f2933", "#7b8794", "#eef1f4", "#cbd2d9", "#c01f3a"
COLOUR, LABELS, BUDGET = "#2f80c2", "#1c8f8f", "#12406a"
OTHERS = ("#d99a00", "#8e5bb5", "#5a8f29", "#c2579a", "#b5651d", "#52606d", "#7a8f1c", "#4b6cb7")
MARKS = "osD^vPX*"
DASHED = (0, (4, 3))
FAMILIES_SHOWN = 40
_WHITE = "#ffffff"
_DARK = {INK: "#e4e9ee", QUIET: "#9aa7b4", GRID: "#2b343d", EDGE: "#46525e", _WHITE: "#1b2229", "#52606d": "#93a1b0",
         BUDGET: "#a9cdf0"}  # fmt: skip
"""What a colour is on a dark page."""

Draw = Callable[[], Picture]


def drawn(pictures: Mapping[str, Draw]) -> Iterator[tuple[str, str, bytes]]:
    """Name, SVG and PNG of each."""
    for name, draw in pictures.items():
        picture = draw()
        with styled():
            svg = as_svg(picture)
            # It has been laid out, which takes longer than drawing.
            picture.set_layout_engine("none")
            yield name, themed(svg), as_png(picture)


def themed(svg: str) -> str:
    """An SVG whose ink and paper follow whether the reader's page is dark."""
    names = {colour: f"--c{at}" for at, colour in enumerate(_DARK)}
    svg = re.sub("|".join(names), lambda found: f"var({names[found.group()]})", svg)
    light, dark = (
        "".join(f"{names[colour]}:{shown};" for colour, shown in colours.items())
        for colours in ({colour: colour for colour in _DARK}, _DARK)
    )
    rules = f"<style>:root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"
    return re.sub(r"(<svg[^>]*>)", lambda found: found.group() + rules, svg, count=1)


def of_attacks(report: Report) -> dict[str, Draw]:
    """Pictures of what is found."""
    pictures: dict[str, Draw] = {}
    if "paired" in report.protocols and any(each.worst for each in report.protocols["paired"].systems.values()):
        pictures["worst"] = partial(worst, report.protocols["paired"])
    for name, protocol in report.protocols.items():
        if any(each.curves for each in protocol.systems.values()):
            pictures[f"families-{name}"] = partial(families, name, protocol)
            pictures[f"curves-{name}"] = partial(curves, name, protocol)
    return pictures


def beside(protocol: ProtocolReport) -> dict[str, SystemReport]:
    """The systems that are drawn next to each other: all but ablations."""
    return {name: each for name, each in protocol.systems.items() if each.kind != "ablation"}


def colours(systems: Sequence[str]) -> dict[str, str]:
    """A colour for each system; the product's are the same in every picture."""
    found = {PRODUCT: COLOUR, f"{PRODUCT}+labels": LABELS, f"{PRODUCT}@budget": BUDGET}
    others = [name for name in systems if name not in found]
    return found | {name: OTHERS[at % len(OTHERS)] for at, name in enumerate(others)}


def shares(axes: Axes, *, vertical: bool = False) -> None:
    """Per cent along the axis of shares."""
    axis = axes.yaxis if vertical else axes.xaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    # Of a logarithmic axis minor ticks are half of the time that a picture takes.
    axis.set_minor_locator(NullLocator())


def whisker(axes: Axes, figure: Figure, at: float, colour: str = INK, end: float = np.inf) -> None:
    """A figure's interval, as a line across a bar at height `at`."""
    if figure.low is not None and figure.high is not None:
        axes.plot([figure.low, min(figure.high, end)], [at, at], color=colour, lw=1.1, zorder=3)


def lanes(axes: Axes, names: Sequence[str], least: int = 4) -> None:
    """Names down the left, the first on top."""
    axes.set_yticks(range(len(names)), [label(name) for name in names])
    axes.set_ylim(max(len(names), least) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def legend(picture: Picture, axes: Axes, order: Sequence[str] = ()) -> None:
    """What the marks of `axes` mean, below the picture, each once; the systems in the report's order."""
    handles, names = axes.get_legend_handles_labels()
    found = dict(zip(names, handles, strict=True))
    names = [name for name in dict.fromkeys((*order, *found)) if name in found]
    # Legends fill columns from top to bottom: so many that no row has a single one.
    columns = min(len(names), 7) if len(names) <= 7 else -(-len(names) // 2)
    shown = [found[name] for name in names]
    picture.legend(shown, names, loc="outside lower center", ncols=max(columns, 1), fontsize=8)


# -- by system ---------------------------------------------------------------------------------------------------------


@styled()
def worst(protocol: ProtocolReport) -> Picture:
    """Each system's worst family."""
    systems = {name: each.worst for name, each in protocol.systems.items() if each.worst}
    picture = Picture((11, 0.31 * max(len(systems), 4) + 1.1), layout="constrained")
    left, right = picture.subplots(1, 2, sharey=True)
    for axes, which in ((left, "recall_at_1"), (right, "auroc")):
        for at, (name, each) in enumerate(systems.items()):
            named = getattr(each, which)
            kind = protocol.systems[name].kind
            colour = {"product": COLOUR, "labels": LABELS}.get(kind, QUIET)
            axes.barh(
                at, named.figure.value or 0.0, color=colour, height=0.62, alpha=0.45 if kind == "ablation" else 0.9
            )
            whisker(axes, named.figure, at)
            axes.annotate(f" {label(named.family)}", (1.0, at), va="center", color=QUIET, fontsize=8)
        axes.set_xlim(0, 1.42)
        axes.set_xticks(np.linspace(0, 1, 6))
        axes.grid(axis="x", color=GRID)
    shares(left)
    lanes(left, list(systems))
    right.tick_params(axis="y", length=0)
    right.axvline(0.5, color=FAILED, lw=1, ls=DASHED)
    left.set_title("Worst family of each system: found at 1 % false positives")
    right.set_title("Worst family by AUROC (dashed: chance)")
    return picture


# -- by family ---------------------------------------------------------------------------------------------------------


@styled()
def families(name: str, protocol: ProtocolReport) -> Picture:
    """The product's bar for each family, and a mark for each system beside it."""
    systems = beside(protocol)
    first = next(iter(systems.values()))
    rows = _shown(first.groups)
    picture = Picture((11, 0.3 * max(len(rows), 4) + 1.5), layout="constrained")
    left, right = picture.subplots(1, 2, sharey=True)
    named = colours(list(systems))
    for axes, which in ((left, "recall_at_1"), (right, "auroc")):
        for number, (system, each) in enumerate(systems.items()):
            groups: dict[tuple[str, str], Figure] = {
                (group.kind, group.name): getattr(group, which) for group in each.groups
            }
            _family_marks(axes, rows, groups, named[system], number, system)
        axes.grid(axis="x", color=GRID)
    left.set_xlim(0, 1.02)
    right.set_xlim(min(0.45, *(_least(each) for each in systems.values())), 1.01)
    right.axvline(0.5, color=FAILED, lw=1, ls=DASHED)
    shares(left)
    lanes(left, [each.name if each.kind != "all" else "all families" for each in rows])
    for tick, row in zip(left.get_yticklabels(), rows, strict=True):
        tick.set_color(INK if row.kind == "family" else QUIET)
    right.tick_params(axis="y", length=0)
    left.set_title(f"{label(name)}: found at 1 % false positives")
    right.set_title("AUROC (dashed: chance)")
    legend(picture, left, [label(system) for system in systems])
    return picture


def _family_marks(
    axes: Axes, rows: Sequence[Group], groups: Mapping[tuple[str, str], Figure], colour: str, number: int, system: str
) -> None:
    """One system: bars with whiskers for the first, small marks for the others."""
    found = [(at, groups[each.kind, each.name]) for at, each in enumerate(rows) if (each.kind, each.name) in groups]
    known = [(at, figure) for at, figure in found if figure.value is not None]
    at, values = [at for at, _ in known], [figure.value or 0.0 for _, figure in known]
    if number:
        mark = MARKS[(number - 1) % len(MARKS)]
        axes.plot(values, at, mark, color=colour, ms=5, mec=_WHITE, mew=0.5, label=label(system), zorder=4)
        return
    axes.barh(at, values, color=colour, height=0.66, alpha=0.85, label=label(system))
    for place, figure in known:
        whisker(axes, figure, place)


def _shown(groups: Sequence[Group]) -> list[Group]:
    """All of them first, then rewrites and families; of many families the worst."""
    first = [each for each in groups if each.kind in ("all", "rewrite")]
    own = [each for each in groups if each.kind == "family"]
    if len(own) > FAMILIES_SHOWN:
        kept = sorted(own, key=lambda each: each.recall_at_1.value or 0.0)[:FAMILIES_SHOWN]
        own = [each for each in own if each in kept]
    return first + own


def _least(system: SystemReport) -> float:
    return min((each.auroc.value or 1.0 for each in system.groups), default=1.0) - 0.02


# -- by threshold ------------------------------------------------------------------------------------------------------


@styled()
def curves(name: str, protocol: ProtocolReport) -> Picture:
    """Precision against recall, and recall against false positives."""
    systems = {system: each for system, each in beside(protocol).items() if each.curves}
    picture = Picture((11, 4.4), layout="constrained")
    left, right = picture.subplots(1, 2)
    named = colours(list(systems))
    for system, each in systems.items():
        assert each.curves is not None
        wide = each.kind == "product"
        style: dict[str, Any] = {"color": named[system], "lw": 2.4 if wide else 1.2, "zorder": 4 if wide else 3}
        left.plot(each.curves.recall, each.curves.precision, label=label(system), **style)
        right.plot(each.curves.false_positives, each.curves.recall_at, **style)
    for axes in (left, right):
        axes.grid(color=GRID)
        axes.set_ylim(0, 1.03)
        shares(axes, vertical=True)
    right.set(xscale="log", xlim=(1e-3, 1))
    for level in (0.01, 0.05):
        right.axvline(level, color=FAILED, lw=1, ls=DASHED)
    left.set_xlim(0, 1)
    shares(left)
    shares(right)
    left.set_title(f"{label(name)}: precision by recall")
    left.set_xlabel("attacks found")
    right.set_title("Attacks found, by benign sessions found")
    right.set_xlabel("benign sessions found (dashed: 1 % and 5 %)")
    legend(picture, left, [label(system) for system in systems])
    return picture
