"""What `report.json` holds. Its JSON Schema, `report.schema.json`, is made of this file: see `schema.py`."""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["product", "budget", "labels", "ablation", "baseline"]
GroupKind = Literal["all", "rewrite", "family", "obeyed", "slice"]


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A measured number, its 95 % interval, and what it was measured on."""

    value: float | None
    """Mean over seeds; null where there was nothing to measure."""
    low: float | None = None
    """Null where nothing is known of the interval, such as with one cluster."""
    high: float | None = None
    n: int
    """Judged sessions behind it, summed over seeds; for a difference those of the system."""
    clusters: int
    """Distinct conversations (tasks, else sessions) among them."""
    by: Literal["bootstrap", "binomial", "seeds", "order"] = "bootstrap"
    """The interval: percentiles of the clustered bootstrap; exact binomial over as many sessions as the clusters are
    worth; the least and the greatest of the seeds; order statistics of a median."""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A system's figures less those of `tidegate`, paired: in each replicate both see the same sessions."""

    auroc: Figure
    average_precision: Figure
    recall_at_1: Figure
    recall_at_5: Figure
    recall: Figure


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Attack sessions of one kind, against the benign sessions of the same seed."""

    kind: GroupKind
    """`rewrite`: all families, rewritten in one way; `obeyed`: by whether the agent did what the injection asked."""
    name: str
    """Of a rewrite its suffix, `recorded` for none; of the obeyed `obeyed` or `ignored`; of a slice `name: value`."""
    attacks: int
    """Judged, summed over seeds."""
    clusters: int
    auroc: Figure
    average_precision: Figure
    recall_at_1: Figure
    """At 1 % false positives by session, by the benign sessions of the seed."""
    recall_at_5: Figure
    recall: Figure
    """At the nominal operating point, as flagged."""
    precision: Figure
    """At the nominal operating point; it depends on how many attacks the protocol has for a benign session."""
    turns: Figure
    """Events of a found attack up to the first that was flagged, that one included; mean."""
    marked: Figure
    """Share of found attacks, as flagged, of whose strangest event a finding shows first what the attack has placed."""
    difference: Difference | None = None


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """A family, and its figure."""

    family: str
    figure: Figure


class Worst(msgspec.Struct, frozen=True, kw_only=True):
    """The families that a system is worst at; the interval is that of the family, not of a minimum."""

    recall_at_1: Named
    auroc: Named


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """A nominal rate, and the share of benign sessions whose p is at or below it."""

    nominal: float
    observed: Figure


class CalibrationCurve(msgspec.Struct, frozen=True, kw_only=True):
    """The same on a fine grid, for drawing."""

    nominal: list[float]
    observed: list[float | None]
    low: list[float | None]
    high: list[float | None]


class Curves(msgspec.Struct, frozen=True, kw_only=True):
    """All attacks against all benign sessions at all thresholds; means over seeds."""

    recall: list[float]
    precision: list[float]
    """At each of `recall`."""
    false_positives: list[float]
    recall_at: list[float]
    """At each of `false_positives`."""


class Harmless(msgspec.Struct, frozen=True, kw_only=True):
    """Sessions that hold something harmless which may look strange: look-alikes of attacks, or controls."""

    label: Literal["benign", "control"]
    name: str
    """What hides in them; `all` for all of a label."""
    source: str
    """Whether the system learned from others of the same source: `seen`, `unseen`, or empty where nobody says."""
    flagged: Figure
    """Share at the nominal operating point."""
    at_1: Figure
    """Share where 1 % of plain benign sessions are found."""
    at_5: Figure
    auroc: Figure
    """Against plain benign sessions; 0.5: told apart from them no better than by chance."""


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """Sessions with one value of one property."""

    name: str
    value: str
    benign: int
    """Judged, summed over seeds."""
    clusters: int
    """Of them."""
    flagged: Figure
    """False-positive rate at the nominal operating point."""
    at_5: Figure
    """Share of its benign sessions found where 5 % of all are: more of them than are flagged, so a closer look."""
    flagged_ratio: Figure
    """`flagged` by that of all benign sessions of the protocol."""
    at_5_ratio: Figure
    above_twice: Literal["no", "maybe", "yes"]
    """Whether either ratio is above 2; `yes`: beyond its interval."""
    attacks: Group | None
    """Null where the slice has none."""
    rewrites: list[Group] = []
    """The same by rewrite, named so."""


class CostFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What a system takes, on one thread."""

    events: int
    """Judged, summed over seeds."""
    events_per_s: Figure
    us_per_event: Figure
    fit_s: Figure | None
    latency_p50_ms: Figure | None
    latency_p99_ms: Figure | None


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One session that the product got wrong."""

    tenant: str
    session: str
    seed: int
    family: str
    score: float
    p: float
    flagged: bool
    signal: str
    turn: int | None
    """Of the first finding, from 0."""
    turns: int
    """Events of the session."""
    excerpt: str
    """Empty where the caller gave none."""


class Screen(msgspec.Struct, frozen=True, kw_only=True):
    """The worst of both kinds of error; a session counts in the seed where it was worst."""

    misses: list[Case]
    """Attacks not flagged, the least strange first."""
    false_positives: list[Case]
    """Benign sessions flagged, the strangest first."""


class SystemReport(msgspec.Struct, frozen=True, kw_only=True):
    """One system in one protocol."""

    kind: Kind
    seeds: list[int]
    worst: Worst | None
    """Null where the protocol has no attacks."""
    groups: list[Group]
    against_placed: Group | None
    """All attacks against harmless sessions that were placed as they were (twins, look-alikes) alone, where there are
    plain ones too: what is flagged for being foreign is no better here than chance."""
    false_positives: Figure
    """Observed rate at the nominal operating point, of the protocol's benign sessions; of plain ones, where there are
    no attacks."""
    calibration: list[Level]
    calibration_curve: CalibrationCurve
    curves: Curves | None
    harmless: list[Harmless]
    slices: list[Slice]
    """Of `tidegate`, and of every system in the protocol `slices`."""
    cost: CostFigures | None


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was counted while the trials were made, summed over seeds."""

    name: str
    count: int


class ProtocolReport(msgspec.Struct, frozen=True, kw_only=True):
    """One protocol."""

    seeds: list[int]
    benign: int
    """Distinct sessions over all seeds."""
    attacks: int
    controls: int
    clusters: int
    counts: list[Count]
    systems: dict[str, SystemReport]
    screen: Screen | None
    """Of `tidegate`."""


class StreamDay(msgspec.Struct, frozen=True, kw_only=True):
    """One day of the stream; means over seeds."""

    day: int
    events: float
    budget: float | None
    """Null on days when it did not bind."""
    findings: Figure
    attacks: Figure
    """Findings on attacks."""
    drifts: Figure
    """Findings that say drift."""


class Drifts(msgspec.Struct, frozen=True, kw_only=True):
    """Tenants that changed one thing, over all seeds, by how it was reported."""

    what: str
    events: int
    drift: int
    attack: int
    both: int
    nothing: int
    median_hours: float | None
    """From the change to the finding of drift."""
    flagged: float | None
    """Share of these tenants' sessions after the change that were found as attacks."""


class First(msgspec.Struct, frozen=True, kw_only=True):
    """How soon attacks of a family are found, those that are; medians over all seeds."""

    family: str
    found: int
    turns: Figure
    hours: Figure


class Poisoning(msgspec.Struct, frozen=True, kw_only=True):
    """Tenants whose normal somebody moved in small steps before attacking, over all seeds, by what was moved."""

    what: str
    events: int
    steps: int
    """Sessions that moved it."""
    steps_flagged: int
    attacks: int
    """Sessions for which it was done."""
    found: int
    found_unpoisoned: int | None
    """Of the same attacks, had the steps not been; null where that was not run."""


class StreamReport(msgspec.Struct, frozen=True, kw_only=True):
    """One system's two weeks, beside what the protocol `stream` says of its sessions."""

    seeds: list[int]
    days: list[StreamDay]
    budget_used: Figure
    """Findings after the third day with a budget, by the sum of those days' budgets."""
    precision: Figure
    """Share of findings that are on attacks, drift aside."""
    drifts: list[Drifts]
    false_drifts: Figure
    """Findings of drift for each day of a tenant that has not changed."""
    poisonings: list[Poisoning]
    over_budget: Figure
    """Events at or beyond the operating point for which the budget had no room."""
    first: list[First]


class Absence(msgspec.Struct, frozen=True, kw_only=True):
    """What had nothing to do, and why."""

    protocol: str
    system: str
    """Empty: the whole protocol."""
    reason: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """An evaluation."""

    version: Literal[1] = 1
    headline: list[str]
    """In sentences; the first is about the worst family of `paired`."""
    nominal: float
    """The operating point: share of benign sessions."""
    level: float
    """Of all intervals."""
    replicates: int
    rows: int
    embedder: str
    release: str
    """Empty where every seed trained its own."""
    protocols: dict[str, ProtocolReport]
    stream: dict[str, StreamReport]
    """By system; empty where the protocol was not run."""
    absent: list[Absence]
