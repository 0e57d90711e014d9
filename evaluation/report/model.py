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
    """Null where `low` is."""
    n: int
    """Judged sessions behind it, summed over seeds; for a difference those of the system; in `cost` events, and in a
    `StreamReport` the findings, events or attacks that were counted."""
    clusters: int
    """Distinct conversations (tasks, else sessions) among them; with `seeds` 0, with `order` as `n`."""
    by: Literal["bootstrap", "binomial", "seeds", "order"] = "bootstrap"
    """The interval: percentiles of the clustered bootstrap; exact binomial over as many sessions as the clusters are
    worth; the least and the greatest of the seeds; order statistics of a median."""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A system's figures less those of `tidegate`, paired: in each replicate both see the same sessions."""

    auroc: Figure
    """Of `auroc`, in the seeds where both were judged; null where there are none."""
    average_precision: Figure
    """Of `average_precision`, likewise."""
    recall_at_1: Figure
    """Of `recall_at_1`, likewise."""
    recall_at_5: Figure
    """Of `recall_at_5`, likewise."""
    recall: Figure
    """Of `recall`, likewise."""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Attack sessions of one kind, against the benign sessions of the same seed."""

    kind: GroupKind
    """`rewrite`: all families, rewritten in one way; `obeyed`: by whether the agent did what the injection asked."""
    name: str
    """Of a rewrite its suffix, `recorded` for none; of the obeyed `obeyed` or `ignored`; of a slice `name: value`."""
    attacks: int
    """Judged, summed over seeds."""
    clusters: int
    """Distinct conversations among them."""
    auroc: Figure
    """The chance that an attack scores above a benign session; a tie is half."""
    average_precision: Figure
    """Precision at each attack's score, averaged over attacks; nothing is interpolated."""
    recall_at_1: Figure
    """At 1 % false positives by session, by the benign sessions of the seed."""
    recall_at_5: Figure
    """At 5 % false positives, likewise."""
    recall: Figure
    """At the nominal operating point, as flagged."""
    precision: Figure
    """At the nominal operating point; it depends on how many attacks the protocol has for a benign session."""
    turns: Figure
    """Events of a found attack up to the first that was flagged, that one included; mean."""
    marked: Figure
    """Share of found attacks, as flagged, of whose strangest event a finding shows first what the attack has placed."""
    difference: Difference | None = None
    """Null of `tidegate` itself, where it was not judged, and in `against_placed`."""


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """A family, and its figure."""

    family: str
    """With the rewrite's suffix, such as `<family>+goal`."""
    figure: Figure
    """Of its group, the measure that it is worst by."""


class Worst(msgspec.Struct, frozen=True, kw_only=True):
    """The families that a system is worst at; the interval is that of the family, not of a minimum."""

    recall_at_1: Named
    """The family with the least `recall_at_1`; of equals the one with the lower `auroc`."""
    auroc: Named
    """The family with the least `auroc`; of equals the one with the lower `recall_at_1`."""


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """A nominal rate, and the share of benign sessions whose p is at or below it."""

    nominal: float
    """A share, from 0 to 1."""
    observed: Figure
    """Share, of the sessions that `false_positives` is of."""


class CalibrationCurve(msgspec.Struct, frozen=True, kw_only=True):
    """The same on a fine grid, for drawing."""

    nominal: list[float]
    """31 rates from 0.001 to 1, evenly spaced by their logarithm."""
    observed: list[float | None]
    """At each of `nominal`; null where the system has no benign sessions."""
    low: list[float | None]
    """Of the interval of each of `observed`; null where nothing is known of it."""
    high: list[float | None]
    """Null where `low` is."""


class Curves(msgspec.Struct, frozen=True, kw_only=True):
    """All attacks against all benign sessions at all thresholds; means over seeds."""

    recall: list[float]
    """50 shares of attacks, from 0.02 to 1."""
    precision: list[float]
    """At each of `recall`."""
    false_positives: list[float]
    """Shares of benign sessions: 31 from 0.001 to 1, evenly spaced by their logarithm."""
    recall_at: list[float]
    """At each of `false_positives`."""


class Harmless(msgspec.Struct, frozen=True, kw_only=True):
    """Sessions that hold something harmless which may look strange: look-alikes of attacks, or controls."""

    label: Literal["benign", "control"]
    """`benign`: look-alikes and twins; `control`: harmless text in an attack's place, in `stream` poison on its way."""
    name: str
    """What hides in them; `all` for all of a label."""
    source: str
    """Whether the system learned from others of the same source: `seen`, `unseen`, or empty where nobody says."""
    flagged: Figure
    """Share at the nominal operating point."""
    at_1: Figure
    """Share where 1 % of plain benign sessions are found."""
    at_5: Figure
    """Share where 5 % of them are."""
    auroc: Figure
    """Against plain benign sessions; 0.5: told apart from them no better than by chance."""


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """Sessions with one value of one property."""

    name: str
    """The property, such as `language`."""
    value: str
    """Of the property, such as `german`."""
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
    """`at_5` by that of all benign sessions of the protocol."""
    above_twice: Literal["no", "maybe", "yes"]
    """Whether either ratio is above 2; `yes`: beyond its interval."""
    attacks: Group | None
    """Null where the slice has none."""
    rewrites: list[Group] = []
    """The same by rewrite, named so."""


class CostFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What a system takes to fit and to judge, on one thread; means over seeds."""

    events: int
    """Judged, summed over seeds."""
    events_per_s: Figure
    """Judged in a second, without the making of the events. Of an ablation (`tidegate-<signal>`) that of the whole
    product, as it is what the product said less a signal; `tidegate-tagger` is measured by itself."""
    us_per_event: Figure
    """Microseconds to judge an event, likewise."""
    fit_s: Figure | None
    """Seconds to learn and calibrate, of seeds where that was measured here; null where it was in none: a fit counts
    once, in the protocol that needed it first, and that of `tidegate@budget` with `tidegate`. An ablation has the
    product's models: once these are trained, it is calibrated alone; `tidegate-tagger` is trained anew."""
    latency_p50_ms: Figure | None
    """Milliseconds for an event judged by itself, the median of some 300. Of the product they are those of whole
    sessions, evenly spread, and nothing is learned; in `stream` they are its last ones, a tenth of all at most, and it
    learns. Of a baseline they are single events, evenly spread (HalfSpaceTrees in `stream`: all), each with an equal
    share of what it took to read all of them. An ablation's are the product's, those of `tidegate+labels` means over
    its folds."""
    latency_p99_ms: Figure | None
    """The 99th percentile, likewise."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One session that the product got wrong."""

    tenant: str
    """With `session`, as in `sessions.jsonl`."""
    session: str
    """Its name within the tenant."""
    seed: int
    """Where it was worst."""
    family: str
    """The attack's; of a false positive what hides in it, empty for a plain session."""
    score: float
    """Of its strangest event; higher is stranger."""
    p: float
    """Of that event: the share of benign sessions that are expected to be as strange."""
    flagged: bool
    """False in `misses`, true in `false_positives`."""
    signal: str
    """That with the least p of that event; empty where none said anything."""
    turn: int | None
    """Event that was flagged first, from 0; null in `misses`."""
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
    """`product`: `tidegate`; `budget`: it in budget mode; `labels`: it with the classifier of known attacks;
    `ablation`: it less a signal, `tidegate-<signal>`; `baseline`: any other."""
    seeds: list[int]
    """Those that it was judged in."""
    worst: Worst | None
    """Null where the protocol has no attacks."""
    groups: list[Group]
    """All attacks, then by rewrite, by family and by whether they were obeyed; empty without attacks."""
    against_placed: Group | None
    """All attacks against harmless sessions that were placed as they were (twins, look-alikes) alone, where there are
    plain ones too: what is flagged for being foreign is no better here than chance."""
    false_positives: Figure
    """Observed rate at the nominal operating point, of the protocol's benign sessions; of plain ones, where there are
    no attacks."""
    calibration: list[Level]
    """At nominal rates of 0.001, 0.005, 0.01, 0.02, 0.05 and 0.1."""
    calibration_curve: CalibrationCurve
    """From 0.001 to 1."""
    curves: Curves | None
    """Null where no seed has both attacks and benign sessions."""
    harmless: list[Harmless]
    """All of a label and source, then by what hides in them; empty where there are none."""
    slices: list[Slice]
    """Of `tidegate`, and of every system in the protocol `slices`."""
    cost: CostFigures | None
    """Null where it was not measured."""


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was counted while the trials were made, summed over seeds."""

    name: str
    """What was counted."""
    count: int
    """Sum over seeds."""


class ProtocolReport(msgspec.Struct, frozen=True, kw_only=True):
    """One protocol."""

    seeds: list[int]
    """Those that any system was judged in."""
    benign: int
    """Distinct sessions over all seeds."""
    attacks: int
    """Distinct sessions likewise."""
    controls: int
    """Distinct sessions likewise, of harmless text in an attack's place."""
    clusters: int
    """Distinct conversations (tasks, else sessions) among all of these."""
    counts: list[Count]
    """By name."""
    systems: dict[str, SystemReport]
    """By name: the product, then by `kind` and name."""
    screen: Screen | None
    """Of `tidegate`."""


class StreamDay(msgspec.Struct, frozen=True, kw_only=True):
    """One day of the stream; means over seeds."""

    day: int
    """From 0, the first that was learned; 7 is the first that was judged."""
    events: float
    """Of all tenants, learned or judged."""
    budget: float | None
    """Null on days when it did not bind."""
    findings: Figure
    """Opened on that day, those of drift included; of other systems than the product a flagged session is one."""
    attacks: Figure
    """Findings on attacks."""
    drifts: Figure
    """Findings that say drift."""


class Drifts(msgspec.Struct, frozen=True, kw_only=True):
    """Tenants that changed one thing, over all seeds, by how it was reported."""

    what: str
    """What they changed: `model`, `prompt` or `usage`."""
    events: int
    """Changes, one a tenant and seed; the sum of `drift`, `attack`, `both` and `nothing`."""
    drift: int
    """Of them reported by a finding of drift alone, at or after the change."""
    attack: int
    """Reported as attacks alone: a larger share of the tenant's sessions was found than before it and than
    `nominal` (binomial test, p < 0.05)."""
    both: int
    """Reported as drift and as attacks."""
    nothing: int
    """Reported as neither."""
    median_hours: float | None
    """From the change to the finding of drift; null where there was none."""
    flagged: float | None
    """Share of these tenants' sessions after the change that were found as attacks; null where they had none."""


class First(msgspec.Struct, frozen=True, kw_only=True):
    """How soon attacks of a family are found, those that are; medians over all seeds."""

    family: str
    """Of the attacks."""
    found: int
    """Attacks; of a scraper all its sessions are one."""
    turns: Figure
    """Events of an attack up to the first that was found, that one included."""
    hours: Figure
    """From an attack's first event to the first that was found, in event time."""


class Poisoning(msgspec.Struct, frozen=True, kw_only=True):
    """Tenants whose normal somebody moved in small steps before attacking, over all seeds, by what was moved."""

    what: str
    """What was moved: `tokens`, `arguments` or `words`."""
    events: int
    """Poisoners, one a tenant and seed."""
    steps: int
    """Sessions that moved it."""
    steps_flagged: int
    """Of them found as attacks."""
    attacks: int
    """Sessions for which it was done."""
    found: int
    """Of the attacks, after the steps."""
    found_unpoisoned: int | None
    """Of the same attacks, had the steps not been; null where that was not run."""


class StreamReport(msgspec.Struct, frozen=True, kw_only=True):
    """One system's two weeks, beside what the protocol `stream` says of its sessions."""

    seeds: list[int]
    """Those that it was judged in."""
    days: list[StreamDay]
    """All 14, the learned ones first."""
    budget_used: Figure
    """Findings after the third day with a budget, by the sum of those days' budgets."""
    precision: Figure
    """Share of findings that are on attacks, drift aside."""
    drifts: list[Drifts]
    """By what was changed; empty where no tenant changed."""
    false_drifts: Figure
    """Findings of drift for each day of a tenant that has not changed."""
    poisonings: list[Poisoning]
    """By what was moved; empty where nobody poisoned."""
    over_budget: Figure
    """Events at or beyond the operating point for which the budget had no room."""
    first: list[First]
    """By family; empty where no attack was found."""


class Absence(msgspec.Struct, frozen=True, kw_only=True):
    """What had nothing to do, and why."""

    protocol: str
    """`corpus`: lines that no protocol could use."""
    seeds: list[int]
    """In others there was something to do, or something else was missing. Empty where it does not hang on the seed."""
    system: str
    """Empty: the whole protocol."""
    reason: str
    """A sentence."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """An evaluation."""

    version: Literal[1] = 1
    """It rises when a field changes its meaning or goes."""
    headline: list[str]
    """In sentences; the first is about the worst family of `paired`."""
    nominal: float
    """The operating point: share of benign sessions."""
    level: float
    """Of all intervals."""
    replicates: int
    """Of the bootstrap."""
    rows: int
    """Lines of `sessions.jsonl`: a judged session by one system."""
    embedder: str
    """Its name; empty where the run did not say."""
    release: str
    """Empty where every seed trained its own."""
    protocols: dict[str, ProtocolReport]
    """By name; those in which anything was judged."""
    stream: dict[str, StreamReport]
    """By system; empty where the protocol was not run."""
    absent: list[Absence]
    """Protocols and systems that had nothing to do."""
