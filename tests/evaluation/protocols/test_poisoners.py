"""Slow poisoners take what the product does not flag, as far as that can be had."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from evaluation.arrivals import Arrivals
from evaluation.protocols.poisoners import GIVEN_UP, LOWERED, Poisoners
from evaluation.protocols.two_weeks import TwoWeeks, lay_out
from schemas.corpus import CorpusSession
from tests.doubles import WordEmbedder
from tests.evaluation.systems.small import SETTINGS
from tests.evaluation.talk import corpus
from tests.stream.releases import release


@dataclass(frozen=True)
class Measuring(Poisoners):
    """Flags whatever is larger than a limit."""

    limit: int = 0

    def _flagged(self, laid_out: TwoWeeks, tenant: str, without: Collection[str] = ()) -> set[str]:
        return {
            probe.session.session
            for probe in laid_out.probes
            if probe.session.tenant == tenant and size(probe.session) > self.limit
        }


def size(session: CorpusSession) -> int:
    return sum(len(turn.text) + sum(len(call.arguments) for call in turn.tool_calls) for turn in session.turns)


def weeks() -> TwoWeeks:
    made = lay_out(corpus(160, tenants=12), Arrivals([]), 0, 4000)
    assert made is not None and made.poisonings
    return made


def steps(laid_out: TwoWeeks) -> dict[str, list[CorpusSession]]:
    at = {(probe.session.tenant, probe.session.session): probe.session for probe in laid_out.probes}
    return {p.what: [at[p.tenant, name] for name in p.steps] for p in laid_out.poisonings}


def held_back(limit: int) -> TwoWeeks:
    return Measuring(release(), SETTINGS, WordEmbedder(), limit).held_back(weeks())


def test_where_nothing_is_flagged_nothing_changes() -> None:
    assert held_back(10**9) == weeks()


def test_steps_that_are_flagged_become_smaller_until_they_are_not() -> None:
    plain, lower = steps(weeks()), steps(held_back(2_500))
    assert any(size(step) > 2_500 for own in plain.values() for step in own)
    assert {what: [max(size(step), 2_500) for step in own] for what, own in lower.items()} == {
        what: [2_500] * len(own) for what, own in plain.items()
    }
    for what, own in plain.items():
        for before, after in zip(own, lower[what], strict=True):
            assert after == before if size(before) <= 2_500 else size(after) < size(before)
            assert (after.session, after.start_ms, after.key) == (before.session, before.start_ms, before.key)


def test_what_is_flagged_however_low_is_given_up() -> None:
    plain, given_up = weeks(), held_back(0)
    origins = {name: origin for ramp in plain.ramps.values() for name, origin in ramp.origins.items()}
    for own in steps(given_up).values():
        for step in own:
            origin = origins[step.session]
            assert (step.turns, step.start_ms, step.key) == (origin.turns, origin.start_ms, origin.key)
    count = sum(len(poisoning.steps) for poisoning in plain.poisonings)
    assert {**given_up.counts, **plain.counts} == given_up.counts
    assert (given_up.counts[GIVEN_UP], given_up.counts.get(LOWERED)) == (count, None)


def test_all_else_stays_as_it_was_laid_out() -> None:
    plain, lower = weeks(), held_back(0)
    names = {(poisoning.tenant, name) for poisoning in plain.poisonings for name in poisoning.steps}
    for before, after in zip(plain.probes, lower.probes, strict=True):
        assert before == after or (before.session.tenant, before.session.session) in names
