"""Whether a tenant's traffic as a whole has moved, and what of it.

Legend: t tenants at a learn point, S sizes that have a mean, P compositions, D their dimensions together, M = S + P
metrics.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from zlib import crc32

import numpy as np
import river
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

OWN = ("prompt_tokens", "completion_tokens", "cost", "duration", "tool_calls", "system_text", "failed")
"""What is averaged beside the other signals' surprise: logarithms of sizes, tool calls and segments of system prompts a
call, the share that failed."""
PARTS = {"topic": 16, "prompt": 8, "models": 16, "tools": 8}
"""What a window consists of, each by its dimensions: projections of what users say and of system prompts, shares of
hashed models and tools."""
EMBEDDED = ("topic", "prompt")
DIMENSIONS = sum(PARTS.values())
GRID = 16
"""Sizes are integers in these parts of one."""
UNIT = 127
"""Length of an embedding; a call counts as much in a share."""
NUMBERS = ("windows", "mean", "squares", "up", "down")
"""A detector, as it is stored: windows it has seen, their mean, the sum of their squared deviations, and Page's two
sums, each over its least value."""
_WINDOWS, _MEAN, _SQUARES, _UP, _DOWN = range(len(NUMBERS))

_SPREAD_SURPRISE, _SPREAD_SIZE, _SPREAD_SHARE, _SPREAD_PART = 0.15, 0.2, 0.05, 0.3
_VERSION = 1
_SLICES = [slice(end - size, end) for size, end in zip(PARTS.values(), np.cumsum(list(PARTS.values())), strict=True)]


@dataclass(slots=True)
class Watch:
    """What is known of tenants' earlier windows. Views or copies, as the caller likes."""

    slow: NDArray[np.float32]
    """(t, D) slow means of the compositions."""
    detectors: NDArray[np.float32]
    """(t, M, 5), `NUMBERS`."""

    def take(self, rows: Ints) -> "Watch":
        """A copy of these rows."""
        return Watch(self.slow[rows], self.detectors[rows])


@dataclass(slots=True)
class Windows:
    """Sums over the events of a window each, (t,): integers, exact in any order."""

    counts: Ints
    """(t, S) events that a size was known of."""
    sums: Ints
    """(t, S), in 1/GRID."""
    part_counts: Ints
    """(t, P) segments or calls."""
    parts: Ints
    """(t, D), in 1/UNIT."""

    def take(self, index: Ints) -> "Windows":
        """Some of the windows."""
        return Windows(self.counts[index], self.sums[index], self.part_counts[index], self.parts[index])


@dataclass(frozen=True, slots=True)
class Drifts:
    """What moved (d)."""

    row: Ints
    """(d,) into the windows given."""
    metric: Ints
    """(d,)."""
    before: Floats
    """(d,) mean of the windows until now."""
    after: Floats
    """(d,) the last window's."""
    statistic: Floats
    """(d,) Page's, in standard deviations of a window; it fires above `Drift.threshold`."""


@cache
def _page_hinkley() -> Any:
    """River's class: importing it takes seconds, and no tenant needs it before its 256th event."""
    from river.drift import PageHinkley

    return PageHinkley


class Drift:
    """How far the latest windows of a tenant's traffic have left those before: Page and Hinkley's test on each metric.

    A window is what a tenant did between two learn points. A metric is a mean (of another signal's surprise, of sizes)
    or how far the window's composition (topics, system prompts, models, tools) lies from the tenant's slow mean. Tests
    are two-sided, in standard deviations of the tenant's own windows, winsorised so that no single window fires.

    Parameters
    ----------
    signals
        The other signals, whose surprise is watched.
    slack
        Standard deviations by which windows may differ for ever (Page's delta).
    threshold
        Sum of what exceeds the slack, from which a metric has drifted.
    believed
        Standard deviations at which a window is winsorised.
    warmup
        Windows of a tenant before a metric may drift; they begin anew after each drift.
    memory
        Windows that the slow mean of compositions is taken over.

    References
    ----------
    Page (1954), Continuous Inspection Schemes; river.drift.PageHinkley. State: `Watch`, 5 numbers a metric.
    """

    name = "drift"
    scale = "tenant"

    def __init__(
        self,
        signals: Sequence[str],
        slack: float = 0.75,
        threshold: float = 8.0,
        believed: float = 4.0,
        warmup: int = 8,
        memory: int = 32,
    ) -> None:
        self.sizes = (*signals, *OWN)
        self.metrics = (*self.sizes, *PARTS)
        self.slack = slack
        self.threshold = threshold
        self.believed = believed
        self.warmup = warmup
        self.memory = memory
        spreads = [_SPREAD_SURPRISE] * len(signals) + [_SPREAD_SIZE] * 6 + [_SPREAD_SHARE] + [_SPREAD_PART] * len(PARTS)
        self.spread = np.array(spreads)
        how = (_VERSION, vars(river)["__version__"], self.metrics, slack, threshold, believed, warmup, memory)
        self.version = crc32(repr(how).encode()) & 0x7FFFFFFF
        """Of what the stored numbers mean; others' are not gone on from."""

    def empty(self, rows: int) -> Watch:
        """What is known of `rows` tenants that have done nothing.

        >>> Drift(["novelty"]).empty(2).detectors.shape
        (2, 12, 5)
        """
        return Watch(
            np.zeros((rows, DIMENSIONS), np.float32), np.zeros((rows, len(self.metrics), len(NUMBERS)), np.float32)
        )

    def values(self, watch: Watch, windows: Windows) -> Floats:
        """Metrics (t, M) of the windows, NaN where a window holds nothing of one."""
        out = np.full((len(windows.counts), len(self.metrics)), np.nan)
        s = len(self.sizes)
        known = windows.counts > 0
        out[:, :s][known] = windows.sums[known] / (GRID * windows.counts[known])
        for part, at in enumerate(_SLICES):
            count = windows.part_counts[:, part].astype(np.float64)
            slow = watch.slow[:, at].astype(np.float64)
            off = np.abs(windows.parts[:, at] / (UNIT * np.maximum(count, 1))[:, None] - slow)
            # A running sum adds one after another: the same bits whatever stands beside a row.
            total = np.cumsum(off**2 if part < len(EMBEDDED) else off / 2, axis=1)[:, -1]
            # The mean of n things lies 1/√n from the truth by chance alone.
            distance = (np.sqrt(total) if part < len(EMBEDDED) else total) * np.sqrt(count)
            out[:, s + part] = np.where((count > 0) & slow.any(axis=1), distance, np.nan)
        return out

    def score(self, watch: Watch, rows: Ints, windows: Windows) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Page's statistics over the threshold if these windows (n) came next in `rows`: the highest, and all (n, M).

        >>> drift = Drift([])
        >>> nothing = Windows(*(np.zeros((1, width), int) for width in (7, 7, 4, 48)))
        >>> drift.score(drift.empty(1), np.array([0]), nothing)[0]
        array([0.], dtype=float32)
        """
        copy = watch.take(rows)
        statistic = self._advance(copy, self.values(copy, windows)) / self.threshold
        return statistic.max(axis=1, initial=0).astype(np.float32), statistic.astype(np.float32)

    def take(self, watch: Watch, windows: Windows) -> Drifts:
        """Take a window (t) each into `watch`, in place: what has drifted with it. Detectors that fire begin anew."""
        x = self.values(watch, windows)
        before = watch.detectors[:, :, _MEAN].astype(np.float64)
        statistic = self._advance(watch, x)
        row, metric = np.nonzero(statistic > self.threshold)
        watch.detectors[row, metric] = 0
        self._follow(
            watch, windows, metric[metric >= len(self.sizes)] - len(self.sizes), row[metric >= len(self.sizes)]
        )
        return Drifts(row, metric, before[row, metric], x[row, metric], statistic[row, metric])

    def _follow(self, watch: Watch, windows: Windows, drifted: Ints, rows: Ints) -> None:
        """Let slow means follow the windows; those of parts that drifted start from the last."""
        for part, at in enumerate(_SLICES):
            watch.slow[rows[drifted == part], at] = 0
            some = np.flatnonzero(windows.part_counts[:, part] > 0)
            mean = windows.parts[some, at] / (UNIT * windows.part_counts[some, part].astype(np.float64))[:, None]
            slow = watch.slow[some, at].astype(np.float64)
            seen = watch.detectors[some, len(self.sizes) + part, _WINDOWS].astype(np.float64)
            rate = np.where(slow.any(axis=1), 1 / np.minimum(seen + 1, self.memory), 1)
            watch.slow[some, at] = slow + rate[:, None] * (mean - slow)

    def _advance(self, watch: Watch, x: Floats) -> Floats:
        """Let every detector see its metric (t, M), in place: the larger of its two sums, in standard deviations."""
        windows, mean, squares = np.moveaxis(watch.detectors[:, :, :_UP].astype(np.float64), 2, 0)
        # The spread is worth two windows before there are any.
        spread = np.sqrt((2 * self.spread**2 + squares) / (2 + np.maximum(windows - 1, 0)))
        held = np.clip(x, mean - self.believed * spread, mean + self.believed * spread)
        held = np.where(windows >= 2, held, x)
        numbers, statistic = watch.detectors.tolist(), np.zeros_like(x).tolist()
        given, spreads = held.tolist(), spread.tolist()
        for row, metric in np.argwhere(~np.isnan(x)).tolist():
            one = spreads[row][metric]
            numbers[row][metric], highest = self._seen(numbers[row][metric], given[row][metric], one)
            statistic[row][metric] = highest / one
        watch.detectors[:] = np.array(numbers).reshape(watch.detectors.shape)
        return np.array(statistic).reshape(x.shape)

    def _seen(self, numbers: list[float], x: float, spread: float) -> tuple[list[float], float]:
        """A detector's numbers after a window of value `x`, and the larger of Page's two sums."""
        windows, before, squares, up, down = numbers
        detector = _page_hinkley()(self.warmup, self.slack * spread, self.threshold * spread, 1.0)
        # River's, made from numbers and read back: what it adds up counts only over its extremes.
        inside = vars(detector)
        if windows:
            inside["_x_mean"].update(before, windows)
            inside.update(_sum_increase=up, _min_increase=0.0, _sum_decrease=-down, _max_decrease=0.0)
        detector.update(x)
        after = inside["_x_mean"].get()
        up = inside["_sum_increase"] - inside["_min_increase"]
        down = inside["_max_decrease"] - inside["_sum_decrease"]
        if windows < self.warmup:
            # What the first windows add up says how they differ, not that they have moved.
            up = down = 0.0
        if windows:
            squares += (x - before) * (x - after)
        return [windows + 1, after, squares, up, down], max(up, down)
