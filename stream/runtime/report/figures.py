"""Pictures of a replay: time, signals, calibration, decisions. The same run gives the same bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import dates, font_manager
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray
from scipy import stats

from schemas.safe_text import safe_text
from stream.runtime.report.gather import UNFLAGGED, Run

SEVERITY = {1: "Informational", 2: "Low", 3: "Medium", 4: "High", 5: "Critical", 6: "Fatal"}
COLOURS = {1: "#7b8794", 2: "#2f80c2", 3: "#d99a00", 4: "#e8590c", 5: "#c01f3a", 6: "#6b0f1a"}
TENANTS_SHOWN = 14
RAREST_SHOWN = DOTS_SHOWN = 1_000
"""Points of the rarest events, and of findings: more would be one blot, and megabytes of it."""
BINS = 120
_INK, _QUIET, _TRAFFIC, _FLAG = "#1f2933", "#7b8794", "#9fb3c8", "#c01f3a"
_LINES = ("#2f80c2", "#5a8f29", "#8e5bb5", "#d99a00", "#1c8f8f", "#b5651d", "#c2579a", "#52606d")
_LABEL_CHARS = 30
_BARS_LEAST = 6
"""Room for so many bars: one alone would fill a picture."""
_LANES = LinearSegmentedColormap.from_list("traffic", ["#ffffff", "#c9d6e3", "#6f89a6"])
_STYLE: dict[Any, Any] = {
    # Glyphs as outlines: the picture is the same where the font is not there, and text from traffic is no text in it.
    "svg.fonttype": "path",
    "svg.hashsalt": "tidegate",
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    # A tenant may be called $x$.
    "text.parse_math": False,
    "text.color": _INK,
    "axes.edgecolor": "#cbd2d9",
    "axes.labelcolor": _QUIET,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": _QUIET,
    "ytick.color": _QUIET,
    "legend.frameon": False,
    "timezone": "UTC",
}


def draw(run: Run, session_fpr: float) -> Iterator[tuple[str, str, bytes]]:
    """Name, SVG and PNG of each picture.

    Parameters
    ----------
    session_fpr
        The operating point, a line in the pictures.
    """
    pictures: dict[str, Callable[[], Figure]] = {
        "timeline": lambda: timeline(run),
        "signals": lambda: signals(run),
        "calibration": lambda: calibration(run, session_fpr),
        "decisions": lambda: decisions(run, session_fpr),
    }
    for name, picture in pictures.items():
        figure = picture()
        with styled():
            svg = as_svg(figure)
            # It has been laid out, which takes longer than drawing.
            figure.set_layout_engine("none")
            yield name, svg, as_png(figure)


@contextmanager
def styled() -> Iterator[None]:
    """Our style, whatever a user's own matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def as_svg(figure: Figure) -> str:
    """The picture as it stands within HTML."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    # Without the XML declaration and document type, which have no place within HTML.
    return re.sub(r"\A.*?(?=<svg)", "", file.getvalue(), flags=re.DOTALL)


def as_png(figure: Figure) -> bytes:
    """The picture as a file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150, metadata={"Software": None})
    return file.getvalue()


# -- time --------------------------------------------------------------------------------------------------------------


@styled()
def timeline(run: Run) -> Figure:
    """Events, how rare they were, findings opened, and a lane for each tenant, over event time."""
    lanes = _lanes(run)
    height = 4.6 + 0.27 * max(len(lanes), 1)
    figure = Figure((11, height), layout="constrained")
    tall = (1.0, 1.3, 0.9, 0.27 * max(len(lanes), 1) + 0.1)
    traffic, rarity, opened, by_tenant = figure.subplots(4, 1, sharex=True, gridspec_kw={"height_ratios": tall})
    start, end = time_range(run.time_ms)
    edges = np.linspace(start, end, BINS + 1)
    _traffic(traffic, run, edges)
    _rarity(rarity, run, (start, end))
    _opened(opened, run, edges)
    _tenants(by_tenant, run, lanes, edges)
    edge = 0.005 * (end - start)
    by_tenant.set_xlim(_day(start - edge), _day(end + edge))
    locator = dates.AutoDateLocator(minticks=4, maxticks=10)  # type: ignore[no-untyped-call]
    by_tenant.xaxis.set_major_locator(locator)
    by_tenant.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    return figure


def time_range(time_ms: NDArray[np.int64]) -> tuple[float, float]:
    """From when to when to draw, ms: all of it, but for a few events whose dates would squeeze the others together.

    >>> time_range(np.r_[0, np.arange(1_000_000, 1_000_500)])
    (1000004.0, 1000494.0)
    """
    if not len(time_ms):
        return 0.0, 86_400_000.0
    start, end = float(time_ms.min()), float(time_ms.max())
    inner_start, inner_end = (float(edge) for edge in np.percentile(time_ms, (1, 99)))
    if end - start > 5 * max(inner_end - inner_start, 1.0) and len(time_ms) > 1:
        start, end = inner_start, inner_end
    return (start, end) if end > start else (start - 1_800_000, end + 1_800_000)


def _traffic(axes: Axes, run: Run, edges: NDArray[np.float64]) -> None:
    counts, _ = np.histogram(run.time_ms, edges)
    axes.stairs(counts, _day(edges), fill=True, color=_TRAFFIC)
    axes.set_title("Events scored")


def _rarity(axes: Axes, run: Run, within: tuple[float, float]) -> None:
    shown = ~np.isnan(run.p_combined) & (run.time_ms >= within[0]) & (run.time_ms <= within[1])
    rarity = -np.log10(np.maximum(run.p_combined, 1e-12))
    index = np.flatnonzero(shown)
    index = np.sort(index[np.argsort(-rarity[index], kind="stable")][:RAREST_SHOWN])
    flagged = run.flagged[index]
    for some, colour, size, name in (
        (index[~flagged], _TRAFFIC, 6, "not flagged"),
        (index[flagged], _FLAG, 14, "flagged"),
    ):
        axes.scatter(_day(run.time_ms[some]), rarity[some], s=size, color=colour, linewidths=0, label=name)
    axes.set_title(f"How rare: the {min(RAREST_SHOWN, len(index)):,} rarest events, −log₁₀ p")
    axes.grid(axis="y", color="#eef1f4")
    if len(index):
        _legend_above(axes)
    axes.set_ylim(bottom=0)


def _opened(axes: Axes, run: Run, edges: NDArray[np.float64]) -> None:
    below = np.zeros(len(edges) - 1)
    for severity in sorted({each.severity_id for each in run.findings}):
        times = np.array([each.created_ms for each in run.findings if each.severity_id == severity])
        counts, _ = np.histogram(times, edges)
        colour = COLOURS.get(severity, _INK)
        axes.stairs(below + counts, _day(edges), baseline=below, fill=True, color=colour, label=_severity(severity))
        below = below + counts
    axes.set_title("Findings opened")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    if run.findings:
        _legend_above(axes)


def _legend_above(axes: Axes) -> None:
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.96), ncols=6, fontsize=8, borderpad=0.2)


def _lanes(run: Run) -> list[tuple[str, list[int]]]:
    """Label and tenants of each lane: those with most findings, then most events; what is left shares one."""
    events = np.bincount(run.tenant, minlength=len(run.tenants))
    found = dict.fromkeys(run.tenants, 0)
    for each in run.findings:
        found[each.tenant] = found.get(each.tenant, 0) + 1
    order = sorted(range(len(run.tenants)), key=lambda t: (-found[run.tenants[t]], -int(events[t]), run.tenants[t]))
    shown, rest = order, list[int]()
    if len(order) > TENANTS_SHOWN:
        shown, rest = order[: TENANTS_SHOWN - 1], order[TENANTS_SHOWN - 1 :]
    lanes = [(label(run.tenants[number]), [number]) for number in shown]
    return [*lanes, (f"{len(rest)} other tenants", rest)] if rest else lanes


def _tenants(axes: Axes, run: Run, lanes: Sequence[tuple[str, list[int]]], edges: NDArray[np.float64]) -> None:
    lane_of = np.zeros(len(run.tenants), np.int64)
    for lane, (_, numbers) in enumerate(lanes):
        lane_of[numbers] = lane
    rows = max(len(lanes), 1)
    place = lane_of[run.tenant] if len(run.tenant) else np.zeros(0, np.int64)
    counts, _, _ = np.histogram2d(place, run.time_ms, (np.arange(rows + 1) - 0.5, edges))
    extent = (float(_day(edges[0])), float(_day(edges[-1])), rows - 0.5, -0.5)
    axes.imshow(np.log1p(counts), aspect="auto", interpolation="nearest", cmap=_LANES, extent=extent)
    number_of = {name: number for number, name in enumerate(run.tenants)}
    # The gravest come first in the run, and are drawn last.
    found = [each for each in run.findings if each.tenant in number_of]
    shown = found[:DOTS_SHOWN]
    for severity in sorted({each.severity_id for each in shown}):
        some = [each for each in shown if each.severity_id == severity]
        axes.scatter(
            _day([each.created_ms for each in some]),
            [lane_of[number_of[each.tenant]] for each in some],
            s=14 + 12 * severity,
            color=COLOURS.get(severity, _INK),
            edgecolors="white",
            linewidths=0.6,
            zorder=3,
        )
    which = "each finding opened" if len(shown) == len(found) else f"each of the {len(shown):,} gravest findings"
    axes.set_title(f"Tenants: traffic in grey, a dot for {which}")
    axes.set_yticks(range(len(lanes)), [name for name, _ in lanes])
    axes.set_yticks(np.arange(rows) + 0.5, minor=True)
    axes.grid(axis="y", which="minor", color="white", linewidth=2)
    axes.tick_params(axis="y", which="both", length=0)


# -- signals -----------------------------------------------------------------------------------------------------------


@styled()
def signals(run: Run) -> Figure:
    """A histogram for each signal, flagged events beside the rest."""
    names = list(run.signals)
    columns = min(3, max(len(names), 1))
    rows = max(1, -(-len(names) // columns))
    figure = Figure((11, 2.5 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, name in zip(grid, names, strict=False):
        _signal(axes, run, name)
    for axes in grid[len(names) :]:
        axes.axis("off")
    return figure


def _signal(axes: Axes, run: Run, name: str) -> None:
    value = run.signals[name].value
    known = np.isfinite(value)
    flagged = run.flagged & known
    edges = value_edges(value[known])
    inside = np.clip(value, edges[0], edges[-1])
    axes.hist(inside[known & ~flagged], bins=list(edges), color=_TRAFFIC, label="not flagged", log=True)
    axes.hist(inside[flagged], bins=list(edges), color=_FLAG, label="flagged", log=True, histtype="step", linewidth=1.6)
    axes.set_ylim(bottom=0.7)
    axes.yaxis.set_major_formatter(FuncFormatter(_count))
    axes.set_title(label(name))
    beyond = int(np.count_nonzero((value[known] < edges[0]) | (value[known] > edges[-1])))
    axes.set_xlabel(f"{np.count_nonzero(known):,} events" + (f", {beyond} beyond the edges" if beyond else ""))
    axes.legend(fontsize=8, loc="upper right")


def value_edges(value: NDArray[np.float64], bins: int = 40) -> NDArray[np.float64]:
    """Edges (bins + 1) of a histogram: of all values, but for a few far outliers that would squeeze the others."""
    if not len(value):
        return np.linspace(0.0, 1.0, bins + 1)
    low, high = float(value.min()), float(value.max())
    inner_low, inner_high = (float(edge) for edge in np.percentile(value, (0.5, 99.5)))
    if high - low > 10 * (inner_high - inner_low) > 0:
        spread = inner_high - inner_low
        low, high = max(low, inner_low - spread), min(high, inner_high + spread)
    if not high > low:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, bins + 1)


# -- calibration -------------------------------------------------------------------------------------------------------


@styled()
def calibration(run: Run, session_fpr: float) -> Figure:
    """Share of sessions whose smallest p is at or below a level, against that level."""
    figure = Figure((11, 4.6), layout="constrained")
    axes = figure.subplots()
    minima = run.session_minima(run.p_combined)
    minima = minima[~np.isnan(minima)]
    sessions = len(minima)
    least = 10.0 ** np.floor(np.log10(min(session_fpr, 1 / max(sessions, 10)) / 10))
    levels = np.logspace(np.log10(least), 0, 200)
    floor = least / 2
    if sessions:
        low, high = (stats.binom.ppf(q, sessions, levels) / sessions for q in (0.025, 0.975))
        band = "where 95 % of calibrated runs of benign sessions lie"
        axes.fill_between(levels, np.maximum(low, floor), np.maximum(high, floor), color="#e9eef3", lw=0, label=band)
    axes.plot([least, 1], [least, 1], color=_QUIET, lw=1, ls=(0, (4, 3)), label="as promised")
    for number, (name, signal) in enumerate(run.signals.items()):
        colour = _LINES[number % len(_LINES)]
        axes.plot(levels, _observed(run.session_minima(signal.p), levels), color=colour, lw=1, label=label(name))
    observed = _observed(minima, levels)
    axes.plot(levels, observed, color=_INK, lw=2.2, label="combined: what decides")
    axes.axvline(session_fpr, color=_FLAG, lw=1)
    at = float(_observed(minima, np.array([session_fpr]))[0]) if sessions else 0.0
    axes.annotate(
        f"operating point {session_fpr:.2%}:\n{at:.2%} of {sessions:,} sessions",
        (session_fpr, 1.0),
        xytext=(6, -2),
        textcoords="offset points",
        va="top",
        color=_FLAG,
        fontsize=8.5,
    )
    axes.set(xscale="log", yscale="log", xlim=(least, 1), ylim=(floor, 1.3))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(_percent))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("level: the share of benign sessions that should come this low")
    axes.set_ylabel("share of this run's sessions")
    axes.set_title("Calibration: smallest p of each session")
    axes.grid(color="#eef1f4")
    axes.legend(fontsize=8, loc="lower right")
    return figure


def _observed(minima: NDArray[np.float64], levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of sessions at or below each level, NaN below the first, where a logarithm ends."""
    known = np.sort(minima[~np.isnan(minima)])
    share = np.searchsorted(known, levels, side="right") / max(len(known), 1)
    return np.where(share > 0, share, np.nan)


# -- decisions ---------------------------------------------------------------------------------------------------------


@styled()
def decisions(run: Run, session_fpr: float) -> Figure:
    """What became of the events, and how many of each tenant's sessions were flagged."""
    shares = _flagged_shares(run)
    figure = Figure((11, max(2.6, 0.28 * len(shares) + 1.0)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.35))
    counts = np.bincount(run.decision, minlength=len(run.decisions))
    order = np.argsort(-counts, kind="stable")
    names = [run.decisions[number] for number in order]
    colours = [_TRAFFIC if name in UNFLAGGED else _FLAG for name in names]
    bars = left.barh(range(len(names)), counts[order], color=colours, height=0.62)
    left.bar_label(bars, [f" {count:,}" for count in counts[order]], color=_INK)
    left.set_yticks(range(len(names)), [label(name) for name in names])
    left.set(xscale="log", xlim=(0.7, max(counts.max(initial=1), 1) * 8))
    left.xaxis.set_major_formatter(FuncFormatter(_count))
    left.set_title("Events by decision")
    left.set_ylim(max(len(names), _BARS_LEAST) - 0.4, -0.6)
    right.barh(range(len(shares)), [100 * share for _, share, _ in shares], color=_FLAG, height=0.62, alpha=0.85)
    for at, (_, share, said) in enumerate(shares):
        right.annotate(f" {said}", (100 * max(share, session_fpr), at), va="center", color=_QUIET, fontsize=8)
    right.axvline(100 * session_fpr, color=_INK, lw=1, ls=(0, (4, 3)))
    right.set_yticks(range(len(shares)), [name for name, _, _ in shares])
    right.set_xlim(0, 125 * max([session_fpr, *(share for _, share, _ in shares)]))
    right.set_ylim(max(len(shares), _BARS_LEAST) - 0.4, -0.6)
    right.set_title("Sessions flagged, % (dashed: the operating point)")
    for axes in (left, right):
        axes.tick_params(axis="y", length=0)
    return figure


def _flagged_shares(run: Run) -> list[tuple[str, float, str]]:
    """Label, share and both counts of each lane."""
    of_tenant = np.array(run.sessions, np.int64)
    sessions = np.bincount(of_tenant, minlength=len(run.tenants))
    flagged = np.bincount(of_tenant[run.flagged_sessions()], minlength=len(run.tenants))
    out = []
    for name, numbers in _lanes(run):
        all_of, some = int(sessions[numbers].sum()), int(flagged[numbers].sum())
        out.append((name, some / max(all_of, 1), f"{some} of {all_of:,}"))
    return out


# -- labels ------------------------------------------------------------------------------------------------------------


def label(text: str) -> str:
    r"""A name from traffic as a picture can show it: short, on one line, of characters that the font has.

    >>> label("team\n\u202e-1"), label("客服")
    ('team -1', '\ufffd\ufffd')
    """
    glyphs = _glyphs()
    return "".join(c if ord(c) in glyphs else "\ufffd" for c in safe_text(text, _LABEL_CHARS)) or "(empty)"


@cache
def _glyphs() -> frozenset[int]:
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans", fallback_to_default=False))
    return frozenset(font.get_charmap())


def _severity(number: int) -> str:
    return SEVERITY.get(number, str(number))


def _count(value: float, _: object) -> str:
    return f"{value:,.0f}"


def _percent(value: float, _: object) -> str:
    return f"{100 * value:g} %"


def _day(ms: Any) -> Any:
    """Milliseconds since 1970 as matplotlib counts time, in days."""
    return np.asarray(ms, np.float64) / 86_400_000.0
