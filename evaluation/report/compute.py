"""Rows and facts -> the report's figures. Nothing else is known here of how a run went."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from evaluation.bootstrap import LEVEL, REPLICATES
from evaluation.report.benign import calibration, curves, false_positives, harmless
from evaluation.report.columns import Rows
from evaluation.report.facts import Absent, Cost, Facts
from evaluation.report.figure import over_seeds
from evaluation.report.groups import Key, Values, against_placed, group, group_values, worst
from evaluation.report.headline import headline
from evaluation.report.model import Absence, CostFigures, Count, Figure, ProtocolReport, Report, SystemReport
from evaluation.report.part import PRODUCT, PROTOCOLS, Part, View, kind_of
from evaluation.report.screens import Excerpts, screen
from evaluation.report.slices import SliceName, slice_values, slices
from evaluation.report.stream import streams
from evaluation.report.words import sentence

SLICES = "slices"
"""The protocol whose slices are told of every system; elsewhere of the product alone."""
Progress = Callable[[str], None]


def compute(
    rows: Rows,
    facts: Facts,
    excerpts: Excerpts,
    replicates: int = REPLICATES,
    progress: Progress = lambda _: None,
) -> Report:
    """Every figure, with its interval. The same rows, in whatever order, give the same report.

    Parameters
    ----------
    excerpts
        Of the text of sessions, for the screen of errors.
    replicates
        Of the bootstrap.
    progress
        Told what is computed next.
    """
    names = [name for name in PROTOCOLS if name in rows.protocol.names]
    names += [name for name in rows.protocol.names if name not in PROTOCOLS]
    protocols: dict[str, ProtocolReport] = {}
    for name in names:
        part = Part.of(rows, name, replicates)
        if len(part.rows):
            protocols[name] = _protocol(part, facts, excerpts, progress)
    stream = streams(facts.streams)
    return Report(
        headline=headline(protocols, stream, facts.nominal),
        nominal=facts.nominal,
        level=LEVEL,
        replicates=replicates,
        rows=len(rows),
        embedder=facts.embedder,
        release=facts.release,
        protocols=protocols,
        stream=stream,
        absent=list(_absent(facts.absent)),
    )


def _absent(absent: Sequence[Absent]) -> Iterator[Absence]:
    """What was missing, once for all seeds that missed it."""
    seeds: dict[tuple[str, str, str], set[int]] = {}
    for each in absent:
        own = seeds.setdefault((each.protocol, each.system, each.reason), set())
        own |= {each.seed} if each.seed is not None else set()
    for (protocol, system, reason), own in seeds.items():
        yield Absence(protocol=protocol, seeds=sorted(own), system=system, reason=sentence(reason))


@dataclass(slots=True)
class _Compared:
    """What the product's values are, for the others of the same part."""

    groups: dict[Key, Values] | None = None
    slices: dict[SliceName, dict[Key, Values]] | None = field(default=None)


def _protocol(part: Part, facts: Facts, excerpts: Excerpts, progress: Progress) -> ProtocolReport:
    counts: dict[str, int] = defaultdict(int)
    for each in facts.counts:
        if each.protocol == part.protocol:
            counts[each.name] += each.count
    compared = _Compared()
    systems = {}
    for name in part.systems:
        progress(f"{part.protocol}: {name}")
        systems[name] = _system(View(part, name), facts, compared)
    benign, attacks, controls = (part.counted(chosen)[2] for chosen in (part.benign, part.attack, part.control))
    return ProtocolReport(
        seeds=part.seeds,
        benign=benign,
        attacks=attacks,
        controls=controls,
        clusters=len(part.draws.clusters),
        counts=[Count(name=name, count=counts[name]) for name in sorted(counts)],
        systems=systems,
        screen=screen(View(part, PRODUCT), excerpts) if PRODUCT in part.systems else None,
    )


def _system(view: View, facts: Facts, compared: _Compared) -> SystemReport:
    part, name = view.part, view.system
    values = group_values(view, part.groups)
    beside = None if name == PRODUCT else compared.groups
    groups = [
        group(view, key, chosen, values[key], None if beside is None else beside[key])
        for key, chosen in part.groups.items()
        if (chosen & view.own).any()
    ]
    sliced = {}
    if part.rows.slices and (name == PRODUCT or part.protocol == SLICES):
        sliced = slice_values(view, rewrites=name == PRODUCT)
    made = list(slices(view, sliced, None if name == PRODUCT else compared.slices)) if sliced else []
    if name == PRODUCT:
        compared.groups, compared.slices = values, sliced or None
    levels, fine = calibration(view)
    return SystemReport(
        kind=kind_of(name),
        seeds=view.seeds,
        worst=worst(groups),
        groups=groups,
        against_placed=against_placed(view),
        false_positives=false_positives(view),
        calibration=levels,
        calibration_curve=fine,
        curves=curves(view),
        harmless=list(harmless(view)),
        slices=made,
        cost=_cost([each for each in facts.costs if (each.protocol, each.system) == (part.protocol, name)]),
    )


def _cost(costs: list[Cost]) -> CostFigures | None:
    judged = [each for each in costs if each.events and each.seconds > 0]
    if not judged:
        return None
    events = sum(each.events for each in judged)

    def of(values: list[float | None]) -> Figure | None:
        known = [value for value in values if value is not None]
        return over_seeds(known, n=events) if known else None

    return CostFigures(
        events=events,
        events_per_s=over_seeds([each.events / each.seconds for each in judged], n=events),
        us_per_event=over_seeds([1e6 * each.seconds / each.events for each in judged], n=events),
        fit_s=of([each.fit_seconds for each in judged]),
        latency_p50_ms=of([each.latency_p50_ms for each in judged]),
        latency_p99_ms=of([each.latency_p99_ms for each in judged]),
    )
