"""`slices`: enough of everything to be cut."""

from __future__ import annotations

from evaluation.protocols.slices import slices
from evaluation.split import Caps, split
from evaluation.trial import Nothing, Trial
from tests.evaluation.office import attacks, corpus

CORPUS = corpus()
HALVES = split(CORPUS, 0, Caps(learn_of_tasks=6, sites=5))


def test_there_are_tenants_of_every_acquaintance_and_attacks_of_every_family() -> None:
    made = slices(CORPUS, HALVES)
    assert isinstance(made, Trial)
    assert {probe.slices["tenant"] for probe in made.probes if probe.label == "benign"} == {"young", "never seen"}
    assert {probe.family for probe in made.probes if probe.label == "attack"} == {
        s.attack_family for s in CORPUS.sessions if s.label == "attack"
    }
    never = [probe.session.tenant for probe in made.probes if probe.slices["tenant"] == "never seen"]
    assert set(never) == set(HALVES.unseen)


def test_a_corpus_of_attacks_alone_has_nothing_for_it() -> None:
    bare = corpus(attacks())
    assert isinstance(slices(bare, split(bare, 0)), Nothing)
