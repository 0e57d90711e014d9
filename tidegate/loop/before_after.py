"""What two releases made of the same sessions, side by side."""

import threading
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from schemas.corpus_records import Truth

Key = tuple[str, str]
"""Tenant, and session as the gateway names it."""
_BEFORE, _AFTER = "#9fb3c8", "#2f80c2"


@dataclass(slots=True)
class Heard:
    """What one scorer said of every session; filled by a thread that watches its scores."""

    least: dict[Key, float] = field(default_factory=dict)
    """The rarest p-value of a session's events."""
    flagged: set[Key] = field(default_factory=set)
    """Sessions with an event beyond the operating point."""
    releases: dict[str, int] = field(default_factory=dict)
    """Events by the release that scored them."""
    events: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def score(self, record: dict[str, Any]) -> None:
        """Take a score record."""
        key = (record["tenant"], record["session"])
        with self._lock:
            self.events += 1
            self.releases[record["release"]] = self.releases.get(record["release"], 0) + 1
            if record["p_combined"] is not None:
                self.least[key] = min(self.least.get(key, 1.0), record["p_combined"])
            if record["decision"] == "finding":
                self.flagged.add(key)


@dataclass(frozen=True, slots=True)
class Point:
    """Attack sessions found and benign sessions flagged at one threshold."""

    found: int
    missed: int
    flagged: int
    benign: int

    @property
    def rate(self) -> float:
        """Share of benign sessions that are flagged."""
        return self.flagged / self.benign if self.benign else 0.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two releases on the same sessions."""

    decided: tuple[Point, Point]
    """As the stream decided, both at the same nominal operating point."""
    same_rate: tuple[Point, Point]
    """Thresholds set so that each flags as many benign sessions as the earlier one's decisions did."""
    same_recall: tuple[Point, Point]
    """Thresholds set so that each finds as many attack sessions as the earlier one's decisions did."""
    families: dict[str, tuple[int, int, int]]
    """Family -> sessions, found before, found after; at the same rate."""

    @property
    def fewer_missed(self) -> float:
        """Share of the attack sessions missed before that are not missed after, at the same false-positive rate."""
        before, after = self.same_rate
        return (before.missed - after.missed) / before.missed if before.missed else 0.0

    @property
    def fewer_flagged(self) -> float:
        """Share of the benign sessions flagged before that are not flagged after, at the same recall."""
        before, after = self.same_recall
        return (before.flagged - after.flagged) / before.flagged if before.flagged else 0.0


def compare(truths: Mapping[Key, Truth], before: Heard, after: Heard) -> Comparison:
    """Both releases on the sessions of `truths`; a session without a score counts as ordinary."""
    attacks = {key for key, truth in truths.items() if truth.label == "attack"}
    benign = truths.keys() - attacks
    decided = tuple(
        Point(len(heard.flagged & attacks), len(attacks - heard.flagged), len(heard.flagged & benign), len(benign))
        for heard in (before, after)
    )
    at_rate, at_recall = [], []
    found_at_rate: list[set[Key]] = []
    for heard in (before, after):
        ordinary = sorted(heard.least.get(key, 1.0) for key in benign)
        # Flags the `flagged` rarest benign sessions, and none beyond them.
        below = ordinary[decided[0].flagged] if decided[0].flagged < len(ordinary) else 1.0
        found_at_rate.append({key for key in attacks if heard.least.get(key, 1.0) < below})
        found = len(found_at_rate[-1])
        at_rate.append(Point(found, len(attacks) - found, bisect_left(ordinary, below), len(benign)))
        rarest = sorted(heard.least.get(key, 1.0) for key in attacks)
        upto = rarest[decided[0].found - 1] if decided[0].found else 0.0
        found = sum(p <= upto for p in rarest)
        at_recall.append(Point(found, len(attacks) - found, sum(p <= upto for p in ordinary), len(benign)))
    families: dict[str, tuple[int, int, int]] = {}
    for key in attacks:
        family = ".".join((truths[key].attack_family or "unknown").split(".")[:2])
        count, one, other = families.get(family, (0, 0, 0))
        families[family] = (count + 1, one + (key in found_at_rate[0]), other + (key in found_at_rate[1]))
    return Comparison(
        (decided[0], decided[1]),
        (at_rate[0], at_rate[1]),
        (at_recall[0], at_recall[1]),
        dict(sorted(families.items())),
    )


def draw(comparison: Comparison, names: tuple[str, str]) -> Figure:
    """Missed attack sessions and flagged benign ones, before and after, and what was found by family."""
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(11, 4.5), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1, 2))
        points = {"as decided:\nmissed": [p.missed for p in comparison.decided]}
        points["as decided:\nflagged"] = [p.flagged for p in comparison.decided]
        points["same rate:\nmissed"] = [p.missed for p in comparison.same_rate]
        points["same recall:\nflagged"] = [p.flagged for p in comparison.same_recall]
        for at, colour, name in ((0, _BEFORE, f"before: {names[0]}"), (1, _AFTER, f"after: {names[1]}")):
            places = [i + 0.4 * at for i in range(len(points))]
            bars = left.bar(places, [both[at] for both in points.values()], 0.38, color=colour, label=name)
            left.bar_label(bars)
            spots = [i + 0.4 * at for i in range(len(comparison.families))]
            shares = [counts[at + 1] / counts[0] for counts in comparison.families.values()]
            right.barh(spots, shares, 0.38, color=colour, label=name)
        left.set_xticks([i + 0.2 for i in range(len(points))], list(points))
        left.set_title("sessions", loc="left")
        labels = [f"{family} ({counts[0]})" for family, counts in comparison.families.items()]
        right.set_yticks([i + 0.2 for i in range(len(labels))], labels)
        right.invert_yaxis()
        right.set_xlim(0, 1)
        right.set_title("share of attack sessions found at the same false-positive rate", loc="left")
        right.legend(loc="lower right", frameon=False)
    return figure
