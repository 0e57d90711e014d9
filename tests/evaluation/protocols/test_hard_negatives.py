"""`hard_negatives`: look-alikes in tenants, with their kind seen and unseen."""

from __future__ import annotations

from evaluation.protocols.hard_negatives import hard_negatives
from evaluation.split import Caps, split
from evaluation.trial import Nothing, Probe, Trial
from tests.evaluation.office import corpus

CORPUS = corpus()
HALVES = split(CORPUS, 0, Caps(benign=6))


def _trial(*, seen: bool) -> Trial:
    made = hard_negatives(CORPUS, HALVES, seen=seen)
    assert isinstance(made, Trial)
    return made


def _judged(trial: Trial) -> list[Probe]:
    return [probe for probe in trial.probes if probe.family]


def test_the_same_ones_are_judged_on_learned_tenants_whether_their_kind_is_seen_or_not() -> None:
    unseen, seen = _judged(_trial(seen=False)), _judged(_trial(seen=True))
    assert 5 <= len(unseen) <= 15  # a half of twenty, by hash
    assert {probe.cluster for probe in unseen} == {probe.cluster for probe in seen}
    assert {probe.family for probe in unseen} == {"hard_negative+unseen"}
    # Plain sessions too: each fit has a threshold of its own.
    for name, trial in (("unseen", _trial(seen=False)), ("seen", _trial(seen=True))):
        assert {probe.slices["source"] for probe in trial.probes} == {name}
    assert {probe.session.tenant for probe in (*unseen, *seen)} <= set(HALVES.learned)
    assert {probe.label for probe in unseen} == {"benign"}


def test_the_other_half_is_learned_where_their_kind_is_seen() -> None:
    unseen, seen = _trial(seen=False), _trial(seen=True)
    assert unseen.learn is HALVES.learn
    taught = [s for s in seen.learn if s not in unseen.learn]
    assert len(taught) == seen.figures["look_alikes_learned"] == 20 - len(_judged(seen))
    said = {probe.session.turns[-1].text for probe in _judged(seen)}
    assert said.isdisjoint(s.turns[-1].text for s in taught)
    starts = [s.start_ms or 0 for s in seen.learn]
    assert starts == sorted(starts)


def test_no_session_of_the_two_trials_shares_a_name() -> None:
    names = [(p.session.tenant, p.session.session) for seen in (False, True) for p in _trial(seen=seen).probes]
    assert len(set(names)) == len(names)


def test_a_corpus_without_look_alikes_has_nothing_for_it() -> None:
    bare = corpus([s for s in CORPUS.sessions if s not in CORPUS.look_alikes])
    made = hard_negatives(bare, split(bare, 0), seen=True)
    assert made == Nothing("hard_negatives", "there are no harmless look-alikes")


def test_one_look_alike_cannot_be_learned_and_judged() -> None:
    alone = corpus([s for s in CORPUS.sessions if s not in CORPUS.look_alikes[1:]])
    made = [hard_negatives(alone, split(alone, 0), seen=seen) for seen in (False, True)]
    # It falls into one half: either nothing is judged, or nothing is learned.
    assert made[1] == Nothing(
        "hard_negatives", "there are too few harmless look-alikes to learn one half of and to judge the other"
    )
