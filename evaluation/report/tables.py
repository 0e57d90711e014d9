"""The report's tables: cells as words, ready to be escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from evaluation.report.headline import find
from evaluation.report.model import (
    Case,
    Group,
    Harmless,
    Poisoning,
    ProtocolReport,
    Report,
    Slice,
    StreamReport,
)
from evaluation.report.part import PRODUCT
from evaluation.report.words import NONE, number, number_of, percent, percent_of, points_of
from schemas.safe_text import safe_text

NAME_CHARS = 120
_ABOVE = {"no": "", "maybe": "above twice", "yes": "above twice, beyond chance"}


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of words below their heads."""

    heads: Sequence[str]
    words: int
    """How many of the first columns are words, left-aligned; the others are numbers."""
    rows: list[list[str]]
    marked: set[int] = field(default_factory=set)
    """Rows that stand out."""


def name(text: str) -> str:
    """A name from data, short and on one line."""
    return safe_text(text, NAME_CHARS)


def worst_families(protocol: ProtocolReport) -> Table:
    """Each system's worst family, and all families."""
    rows = []
    for system, each in protocol.systems.items():
        if each.worst is None:
            continue
        everything = find(each, "all", "all")
        least, lowest = each.worst.recall_at_1, each.worst.auroc
        cells = [name(system), name(least.family), name(lowest.family)]
        own = [percent_of(least.figure), number_of(lowest.figure)]
        own += [NONE, NONE] if everything is None else [number_of(everything.auroc), percent_of(everything.recall_at_1)]
        rows.append(cells + own)
    heads = ("system", "least found", "lowest AUROC", "found at 1 %", "AUROC", "AUROC, all", "found at 1 %, all")
    return Table(heads, 3, rows)


def systems(protocol: ProtocolReport) -> Table:
    """All attacks of a protocol, by system."""
    heads = ("system", "AUROC", "average precision", "found at 1 %", "at 5 %", "found at nominal", "benign flagged",
             "precision", "turns", "at 1 %, to tidegate (points)")  # fmt: skip
    rows = []
    for system, each in protocol.systems.items():
        everything = find(each, "all", "all")
        cells = [name(system)]
        if everything is None:
            rows.append([*cells, *[NONE] * 5, percent_of(each.false_positives), *[NONE] * 3])
            continue
        lost = everything.difference
        rows.append([
            *cells, number_of(everything.auroc), number_of(everything.average_precision),
            percent_of(everything.recall_at_1), percent_of(everything.recall_at_5), percent_of(everything.recall),
            percent_of(each.false_positives), percent_of(everything.precision), number_of(everything.turns),
            NONE if lost is None else points_of(lost.recall_at_1),
        ])  # fmt: skip
    return Table(heads, 1, rows)


def against_placed(protocol: ProtocolReport) -> Table | None:
    """All attacks against harmless twins alone, by system."""
    heads = ("system", "AUROC", "average precision", "found at 1 %", "at 5 %")
    rows = [
        [name(system), number_of(own.auroc), number_of(own.average_precision), percent_of(own.recall_at_1),
         percent_of(own.recall_at_5)]
        for system, each in protocol.systems.items()
        if (own := each.against_placed) is not None
    ]  # fmt: skip
    return Table(heads, 1, rows) if rows else None


def look_alikes(protocol: ProtocolReport) -> Table:
    """What a protocol without attacks says of each system."""
    heads = ("system", "source", "look-alikes flagged", "where 1 % of plain ones are", "where 5 % are", "AUROC",
             "plain ones flagged")  # fmt: skip
    rows = [
        [name(system), name(own.source) or NONE, percent_of(own.flagged), percent_of(own.at_1), percent_of(own.at_5),
         number_of(own.auroc), percent_of(each.false_positives)]
        for system, each in protocol.systems.items()
        for own in each.harmless
        if (own.label, own.name) == ("benign", "all")
    ]  # fmt: skip
    return Table(heads, 2, rows)


def groups(rows: Sequence[Group]) -> Table:
    """One system's groups."""
    heads = ("", "", "sessions", "tasks", "AUROC", "average precision", "found at 1 %", "at 5 %", "found at nominal",
             "turns", "shown first")  # fmt: skip
    return Table(heads, 2, [_group(each) for each in rows])


def _group(each: Group) -> list[str]:
    return [
        each.kind, name(each.name), f"{each.attacks:,}", f"{each.clusters:,}", number_of(each.auroc),
        number_of(each.average_precision), percent_of(each.recall_at_1), percent_of(each.recall_at_5),
        percent_of(each.recall), number_of(each.turns), percent_of(each.marked),
    ]  # fmt: skip


def slices(rows: Sequence[Slice]) -> Table:
    """Benign and attack sessions of each slice."""
    heads = ("slice", "", "benign", "tasks", "flagged", "to all", "where 5 % of all are", "to all", "attacks",
             "AUROC", "found at 1 %", "at 5 %")  # fmt: skip
    cells = []
    for each in rows:
        own = each.attacks
        cells.append([
            name(f"{each.name}: {each.value}"), _ABOVE[each.above_twice], f"{each.benign:,}", f"{each.clusters:,}",
            percent_of(each.flagged), number_of(each.flagged_ratio), percent_of(each.at_5), number_of(each.at_5_ratio),
            *([NONE] * 4 if own is None else [f"{own.attacks:,}", number_of(own.auroc), percent_of(own.recall_at_1),
                                              percent_of(own.recall_at_5)]),
        ])  # fmt: skip
    return Table(heads, 2, cells, {at for at, each in enumerate(rows) if each.above_twice != "no"})


def rewritten_slices(rows: Sequence[Slice]) -> Table:
    """Attacks of each slice by rewrite."""
    heads = ("slice", "rewrite", "sessions", "tasks", "AUROC", "found at 1 %", "at 5 %")
    cells = [
        [name(f"{each.name}: {each.value}"), own.name, f"{own.attacks:,}", f"{own.clusters:,}", number_of(own.auroc),
         percent_of(own.recall_at_1), percent_of(own.recall_at_5)]
        for each in rows
        for own in each.rewrites
    ]  # fmt: skip
    return Table(heads, 2, cells)


def harmless(rows: Sequence[Harmless]) -> Table:
    """Look-alikes and controls of one system."""
    heads = ("what", "hides", "source", "sessions", "tasks", "flagged at nominal", "where 1 % of plain ones are",
             "where 5 % are", "AUROC")  # fmt: skip
    cells = [
        ["control" if each.label == "control" else "look-alike", name(each.name), name(each.source) or NONE,
         f"{each.flagged.n:,}", f"{each.flagged.clusters:,}", percent_of(each.flagged), percent_of(each.at_1),
         percent_of(each.at_5), number_of(each.auroc)]
        for each in rows
    ]  # fmt: skip
    return Table(heads, 3, cells)


def calibration(report: Report) -> Table:
    """The product's observed rates, by protocol."""
    judged = {key: each.systems[PRODUCT] for key, each in report.protocols.items() if PRODUCT in each.systems}
    levels = next(iter(judged.values())).calibration if judged else []
    heads = ("protocol", "sessions", "tasks", *(f"nominal {percent(level.nominal)}" for level in levels))
    rows = [
        [name(key), f"{each.false_positives.n:,}", f"{each.false_positives.clusters:,}",
         *(percent_of(level.observed) for level in each.calibration)]
        for key, each in judged.items()
    ]  # fmt: skip
    return Table(heads, 1, rows)


def costs(report: Report) -> Table:
    """What systems take, wherever it was measured."""
    heads = ("protocol", "system", "events", "events/s", "µs an event", "fit, s", "latency p50, ms", "p99, ms")
    rows = [
        [name(key), name(system), f"{each.cost.events:,}", number_of(each.cost.events_per_s),
         number_of(each.cost.us_per_event), number_of(each.cost.fit_s), number_of(each.cost.latency_p50_ms),
         number_of(each.cost.latency_p99_ms)]
        for key, protocol in report.protocols.items()
        for system, each in protocol.systems.items()
        if each.cost is not None
    ]  # fmt: skip
    return Table(heads, 2, rows)


def streams(report: Report) -> Table:
    """Every system's two weeks."""
    heads = ("system", "budget used after three days", "findings on attacks", "attacks found",
             "false drift a tenant and day", "events over budget")  # fmt: skip
    judged = report.protocols.get("stream")
    rows = []
    for system, each in report.stream.items():
        own = judged.systems.get(system) if judged else None
        everything = find(own, "all", "all") if own else None
        rows.append([
            name(system), percent_of(each.budget_used), percent_of(each.precision),
            NONE if everything is None else percent_of(everything.recall), number_of(each.false_drifts),
            number_of(each.over_budget),
        ])  # fmt: skip
    return Table(heads, 1, rows)


def drifts(stream: StreamReport) -> Table:
    """How harmless changes were reported."""
    heads = ("a tenant changes its", "times", "said: drift", "drift and attack", "attack", "nothing",
             "hours to drift, median", "its sessions found as attacks")  # fmt: skip
    rows = [
        [name(each.what), f"{each.events}", f"{each.drift}", f"{each.both}", f"{each.attack}", f"{each.nothing}",
         number(each.median_hours), percent(each.flagged)]
        for each in stream.drifts
    ]  # fmt: skip
    return Table(heads, 1, rows)


def poisonings(rows: Sequence[Poisoning]) -> Table:
    """What became of slow poisoners."""
    heads = ("moved", "times", "steps", "of them flagged", "attacks after", "of them found", "without the steps")
    cells = [
        [name(each.what), f"{each.events}", f"{each.steps:,}", f"{each.steps_flagged:,}", f"{each.attacks:,}",
         f"{each.found:,}", NONE if each.found_unpoisoned is None else f"{each.found_unpoisoned:,}"]
        for each in rows
    ]  # fmt: skip
    return Table(heads, 1, cells)


def firsts(stream: StreamReport) -> Table:
    """How soon attacks are found."""
    heads = ("family", "found", "turns to the first finding, median", "hours, median")
    rows = [
        [name(each.family), f"{each.found:,}", number_of(each.turns), number_of(each.hours)] for each in stream.first
    ]
    return Table(heads, 1, rows)


def cases(rows: Sequence[Case]) -> list[dict[str, str]]:
    """The screen of errors."""
    return [
        {
            "tenant": name(each.tenant),
            "session": name(each.session),
            "family": name(each.family) or "plain",
            "seed": f"{each.seed}",
            "score": number(each.score),
            "p": f"{each.p:.2g}",
            "signal": name(each.signal) or NONE,
            "turn": NONE if each.turn is None else f"{each.turn + 1}",
            "turns": f"{each.turns}",
            "excerpt": safe_text(each.excerpt, 1_000),
        }
        for each in rows
    ]
