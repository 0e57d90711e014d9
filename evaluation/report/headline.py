"""The report in a few sentences: what is worst comes first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from evaluation.report.model import Group, GroupKind, ProtocolReport, StreamReport, SystemReport, Worst
from evaluation.report.part import PRODUCT
from evaluation.report.stream import budgeted
from evaluation.report.words import listed, number_of, percent, percent_of

NEVER_SEEN = "never seen"
"""What the slice `tenant` says of tenants of which nothing was learned."""


def headline(protocols: Mapping[str, ProtocolReport], stream: Mapping[str, StreamReport], nominal: float) -> list[str]:
    """Sentences about the product, of what there is."""
    made = {name: report for name, report in protocols.items() if PRODUCT in report.systems}
    said = [
        *(_paired(made["paired"]) if "paired" in made else ()),
        *(sentence for name in ("splice", "session") if name in made for sentence in _foreign(name, made[name])),
        *_operating_points(made, nominal),
        *(_look_alikes(made["hard_negatives"]) if "hard_negatives" in made else ()),
        *_stream(made.get("stream"), stream),
        *_slices(made),
    ]
    return said or [f"Nothing was judged by {PRODUCT}."]


def best_baseline(report: ProtocolReport) -> tuple[str, Worst] | None:
    """The baseline whose worst family is found most often at 1 % false positives, and its worst."""
    found = [(name, each.worst) for name, each in report.systems.items() if each.kind == "baseline" and each.worst]
    return max(found, key=lambda each: each[1].recall_at_1.figure.value or 0.0, default=None)


def find(report: SystemReport, kind: GroupKind, name: str) -> Group | None:
    """One group of a system."""
    return next((each for each in report.groups if (each.kind, each.name) == (kind, name)), None)


def _paired(report: ProtocolReport) -> Iterator[str]:
    own = report.systems[PRODUCT]
    if own.worst is None:
        yield "`paired`: no attack was judged."
        return
    least = own.worst.recall_at_1
    sentence = (
        f"`paired`, in conversations never seen: of the worst family, {least.family}, {percent_of(least.figure)} of"
        f" sessions are found where 1 % of benign ones are"
    )
    if beside := best_baseline(report):
        other = beside[1].recall_at_1
        sentence += f"; the best baseline, {beside[0]}, finds {percent_of(other.figure)} of its worst, {other.family}"
    yield f"{sentence}."
    sentence = f"Its AUROC is lowest for {own.worst.auroc.family}: {number_of(own.worst.auroc.figure)}"
    if everything := find(own, "all", "all"):
        sentence += f"; over all families it is {number_of(everything.auroc)}"
        sentence += (
            f", with {percent_of(everything.recall_at_1)} found at 1 % and {percent_of(everything.recall_at_5)} at 5 %"
        )
    yield f"{sentence}."
    obeyed, ignored = find(own, "obeyed", "obeyed"), find(own, "obeyed", "ignored")
    if obeyed:
        sentence = f"Of injections that were obeyed, {percent_of(obeyed.recall_at_1)} are found at 1 % false positives"
        yield f"{sentence}{f', of ignored ones {percent_of(ignored.recall_at_1)}' if ignored else ''}."
    if everything and everything.marked.value is not None:
        yield f"Of what is found, {percent_of(everything.marked)} of findings show first what was injected."
    for each in own.harmless:
        if (each.label, each.name) == ("control", "all"):
            yield f"Harmless foreign text in an injection's place (controls) has an AUROC of {number_of(each.auroc)}."


def _foreign(name: str, report: ProtocolReport) -> Iterator[str]:
    everything = find(report.systems[PRODUCT], "all", "all")
    if everything is None or everything.recall_at_1.value is None:
        return
    sentence = f"`{name}`: {percent_of(everything.recall_at_1)} of attacks are found at 1 % false positives"
    if twins := report.systems[PRODUCT].against_placed:
        sentence += f", {percent_of(twins.recall_at_1)} at 1 % of their harmless twins alone"
    others = [
        (group.recall_at_1.value or 0.0, system, group)
        for system, each in report.systems.items()
        if each.kind == "baseline" and (group := find(each, "all", "all"))
    ]
    if others:
        _, system, group = max(others, key=lambda each: each[0])
        sentence += f"; by the best baseline, {system}, {percent_of(group.recall_at_1)}"
    yield f"{sentence}."


def _operating_points(made: Mapping[str, ProtocolReport], nominal: float) -> Iterator[str]:
    told = (
        {(each.name, each.value): each for each in made["slices"].systems[PRODUCT].slices} if "slices" in made else {}
    )
    rates = [
        f"{percent_of(rate)} in `{name}`"
        for name, report in made.items()
        if (rate := report.systems[PRODUCT].false_positives).value is not None
    ]
    if ("tenant", NEVER_SEEN) in told:
        rates.append(f"{percent_of(told['tenant', NEVER_SEEN].flagged)} of tenants never seen")
    if rates:
        yield f"At a nominal {percent(nominal)} of benign sessions there are flagged: {listed(rates, len(rates))}."


def _look_alikes(report: ProtocolReport) -> Iterator[str]:
    told = {
        each.source: percent_of(each.flagged)
        for each in report.systems[PRODUCT].harmless
        if (each.label, each.name) == ("benign", "all")
    }
    if told:
        said = [f"{rate} where their source was {source}" if source else rate for source, rate in told.items()]
        yield f"Of harmless look-alikes there are flagged: {listed(said)}."


def _stream(report: ProtocolReport | None, stream: Mapping[str, StreamReport]) -> Iterator[str]:
    if name := budgeted(stream):
        used = stream[name].budget_used
        yield f"`stream`: after three days {percent_of(used)} of the budget is used (in brackets: seeds)."
    if PRODUCT in stream:
        own = stream[PRODUCT]
        said = []
        if report and (everything := find(report.systems[PRODUCT], "all", "all")):
            said.append(f"{percent_of(everything.recall)} of attacks are found")
        if own.precision.value is not None:
            said.append(f"{percent(own.precision.value)} of findings are on attacks")
        if said:
            yield f"`stream`, at the nominal operating point: {listed(said)}."
        if own.drifts:
            events = sum(each.events for each in own.drifts)
            right = sum(each.drift for each in own.drifts)
            yield f"Of {events} harmless changes of tenants {right} are reported as drift and as nothing else."


def _slices(made: Mapping[str, ProtocolReport]) -> Iterator[str]:
    report = made.get("slices") or made.get("paired")
    told = report.systems[PRODUCT].slices if report else []
    if not told:
        return
    above = [f"{each.name}: {each.value}" for each in told if each.above_twice != "no"]
    surely = [f"{each.name}: {each.value}" for each in told if each.above_twice == "yes"]
    if not above:
        yield f"None of {len(told)} slices has more than twice the false positives of all."
        return
    beyond = f"beyond chance {listed(surely)}" if surely else "none of them beyond chance"
    sentence = f"{len(above)} of {len(told)} slices have more than twice the false positives of all"
    yield f"{sentence}: {listed(above)}; {beyond}."
