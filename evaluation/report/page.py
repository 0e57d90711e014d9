"""The report as one page that loads nothing and runs nothing."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from evaluation.report import tables
from evaluation.report.model import ProtocolReport, Report
from evaluation.report.part import PRODUCT
from evaluation.report.stream import budgeted
from evaluation.report.words import number_of, parts, percent, percent_of
from schemas.safe_text import safe_text

_SENTENCE_CHARS = 2_000
_ABOUT = {
    "paired": "Benign sessions of half of the tasks are learned; the others are judged, clean and with an injection in"
    " a tool's result: the same conversation twice.",
    "splice": "A foreign attack is placed inside a benign session; benign twins get a harmless message of another"
    " tenant.",
    "session": "Whole foreign attack sessions, beside benign ones.",
    "hard_negatives": "Harmless sessions that look like attacks: nothing in them should be found.",
    "stream": "Two weeks on the arrival times of real clients, learning on.",
    "slices": "Sessions by what they are like: nobody should be flagged more often for a language or a length.",
}


def page(report: Report, pictures: Mapping[str, str]) -> str:
    """The page's HTML.

    Parameters
    ----------
    pictures
        SVG by name, as `pictures.drawn` makes them.
    """
    environment = Environment(
        loader=PackageLoader("evaluation.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=False
    )
    return environment.get_template("report.html.jinja").render(
        report=_about(report),
        headline=[parts(safe_text(sentence, _SENTENCE_CHARS)) for sentence in report.headline],
        worst=_worst(report),
        protocols=[_protocol(name, each) for name, each in report.protocols.items()],
        stream=_stream(report),
        calibration=tables.calibration(report),
        costs=tables.costs(report),
        pictures={name: as_data(svg) for name, svg in pictures.items()},
    )


def as_data(svg: str) -> str:
    """A picture as an address that holds it: what it says can neither run nor be styled by the page."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _about(report: Report) -> dict[str, Any]:
    seeds = sorted({seed for each in report.protocols.values() for seed in each.seeds})
    return {
        "cards": list(_cards(report, len(seeds))),
        "seeds": len(seeds),
        "nominal": percent(report.nominal),
        "level": percent(report.level),
        "replicates": f"{report.replicates:,}",
        "rows": f"{report.rows:,}",
        "embedder": tables.name(report.embedder),
        "release": tables.name(report.release),
        "absent": [
            (
                tables.name(each.protocol),
                tables.name(each.system),
                ", ".join(map(str, each.seeds)),
                safe_text(each.reason, _SENTENCE_CHARS),
            )
            for each in report.absent
        ],
    }


def _cards(report: Report, seeds: int) -> Iterator[tuple[str, str, str]]:
    paired = report.protocols.get("paired")
    own = paired.systems.get(PRODUCT) if paired else None
    if own and own.worst:
        least, lowest = own.worst.recall_at_1, own.worst.auroc
        yield "worst family found", percent(least.figure.value), f"{tables.name(least.family)}, at 1 % false positives"
        yield "lowest AUROC", number_of(lowest.figure).partition(" ")[0], tables.name(lowest.family)
    if own:
        rate = own.false_positives
        yield "benign flagged", percent(rate.value), f"{percent_of(rate)}, nominal {percent(report.nominal)}"
    if name := budgeted(report.stream):
        used = report.stream[name].budget_used
        yield "budget used", percent(used.value), "of the stream's, after three days"
    yield "judged", f"{report.rows:,}", f"sessions by systems, {seeds} seed{'s' if seeds != 1 else ''}"


def _worst(report: Report) -> tables.Table | None:
    paired = report.protocols.get("paired")
    found = tables.worst_families(paired) if paired else None
    return found if found and found.rows else None


def _protocol(name: str, report: ProtocolReport) -> dict[str, Any]:
    own = report.systems.get(PRODUCT)
    made = {system: each for system, each in report.systems.items() if each.harmless}
    return {
        "name": tables.name(name),
        "key": name,
        "about": _ABOUT.get(name, ""),
        "counted": f"{report.benign:,} benign sessions, {report.attacks:,} attacks and {report.controls:,} controls in"
        f" {report.clusters:,} tasks, {len(report.seeds)} seed{'s' if len(report.seeds) != 1 else ''}.",
        "counts": [
            (safe_text(each.name.replace("_", " "), _SENTENCE_CHARS), f"{each.count:,}") for each in report.counts
        ],
        "systems": tables.systems(report) if report.attacks else tables.look_alikes(report),
        "groups": tables.groups(own.groups) if own and own.groups else None,
        "placed": tables.against_placed(report),
        "slices": tables.slices(own.slices) if own and own.slices else None,
        "rewritten": tables.rewritten_slices(own.slices) if own and any(each.rewrites for each in own.slices) else None,
        "harmless": [(tables.name(system), tables.harmless(each.harmless)) for system, each in made.items()],
        "misses": tables.cases(report.screen.misses) if report.screen else [],
        "false_positives": tables.cases(report.screen.false_positives) if report.screen else [],
    }


def _stream(report: Report) -> dict[str, Any] | None:
    if not report.stream:
        return None
    shown = PRODUCT if PRODUCT in report.stream else next(iter(report.stream))
    own = report.stream[shown]
    return {
        "shown": tables.name(shown),
        "systems": tables.streams(report),
        "drifts": tables.drifts(own) if own.drifts else None,
        "poisonings": tables.poisonings(own.poisonings) if own.poisonings else None,
        "firsts": tables.firsts(own) if own.first else None,
    }
