"""A classifier of known attacks saw neither the family nor the source of what it judges, nor a copy of it."""

from __future__ import annotations

import msgspec

from evaluation.known_attacks import apart, attack_groups, folds
from evaluation.protocols.session import session
from evaluation.protocols.splice import splice
from evaluation.split import split
from evaluation.trial import Trial
from tests.evaluation.office import corpus

CORPUS = corpus()


def test_sources_that_tell_the_same_texts_are_one_group() -> None:
    groups = attack_groups(CORPUS)
    assert groups["jailbreak.forum"] == groups["jailbreak.copied"]
    assert groups["indirect.urgent"] == groups["indirect.override"]
    assert len(set(groups.values())) == 4


def test_apart_leaves_out_the_whole_group() -> None:
    left = {s.attack_family for s in apart(CORPUS, ["jailbreak.copied"])}
    assert left == {"jailbreak.lab", "extraction", "indirect.urgent", "indirect.override"}


def test_every_probe_is_judged_once_and_by_a_classifier_that_knows_nothing_like_it() -> None:
    groups = attack_groups(CORPUS)
    halves = split(CORPUS, 0)
    for trial in (splice(CORPUS, halves), session(CORPUS, halves)):
        assert isinstance(trial, Trial)
        made = folds(trial, CORPUS)
        assert len(made) == 3
        dealt = [probe for fold in made for probe in fold.probes]
        assert sorted(p.session.session for p in dealt) == sorted(p.session.session for p in trial.probes)
        for fold in made:
            judged = {groups[p.family.split("+")[0]] for p in fold.probes if p.label == "attack"}
            known = {groups[s.attack_family or ""] for s in fold.attacks}
            assert judged.isdisjoint(known)
            assert known
            assert {s.source for s in fold.attacks}.isdisjoint(
                s.source for s in CORPUS.foreign if groups[s.attack_family or ""] in judged
            )
            assert any(p.label == "benign" for p in fold.probes)
            assert fold.learn is trial.learn


def test_without_families_sources_stand_for_them() -> None:
    bare = corpus([msgspec.structs.replace(s, attack_family=None) for s in CORPUS.sessions])
    groups = attack_groups(bare)
    assert set(groups) == {"forum", "copycat", "lab", "spies", "office"}
    assert groups["forum"] == groups["copycat"]
    assert len(set(groups.values())) == 4


def test_one_group_alone_leaves_nothing_to_learn_from() -> None:
    alone = corpus([s for s in CORPUS.sessions if s.label == "benign" or s.source == "spies"])
    trial = session(alone, split(alone, 0))
    assert isinstance(trial, Trial)
    assert folds(trial, alone) == []
