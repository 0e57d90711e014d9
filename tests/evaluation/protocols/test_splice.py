"""`splice`: a foreign message in a benign session, and a harmless one in the same place."""

from __future__ import annotations

from collections import Counter
from functools import cache

import msgspec
import pytest

from evaluation.protocols.splice import message, splice, spliced
from evaluation.split import Caps, split
from evaluation.trial import Nothing, Probe, Trial
from schemas.corpus import Turn
from tests.evaluation.office import chat, corpus

CORPUS = corpus()
HALVES = split(CORPUS, 0, Caps(foreign=4))


@cache
def _trial() -> Trial:
    made = splice(CORPUS, HALVES)
    assert isinstance(made, Trial)
    return made


def test_each_attack_comes_in_both_places_with_a_twin_beside_it() -> None:
    count = Counter((probe.label, probe.family) for probe in _trial().probes)
    assert count["benign", "twin+user"] == count["benign", "twin+tool"] == 4 * 4
    assert all(count["attack", f"{s.attack_family}+{place}"] == 4 for s in CORPUS.foreign for place in ("user", "tool"))
    assert _trial().figures == {"attacks": 16}


def test_a_twin_is_the_same_session_with_as_long_a_message_in_the_same_place() -> None:
    by_carrier: dict[tuple[str, str, str], list[Probe]] = {}
    for probe in _trial().probes:
        turns = probe.session.turns
        shape = "/".join(turn.role for turn in turns)
        by_carrier.setdefault((probe.cluster, probe.slices["place"], shape), []).append(probe)
    for own in by_carrier.values():
        assert Counter(probe.label for probe in own)["attack"] == len(own) / 2
        sizes = [
            sum(sum(len(turn.text) for turn in probe.session.turns) for probe in own if probe.label == label) / len(own)
            for label in ("attack", "benign")
        ]
        assert sizes[1] == pytest.approx(sizes[0], rel=0.2)


def test_the_message_is_told_whole_and_only_by_attacks() -> None:
    said = [message(attack) for attack in CORPUS.foreign]
    for probe in _trial().probes:
        texts = "\n".join(turn.text for turn in probe.session.turns).replace('\\"', '"')
        assert any(text in texts for text in said) == (probe.label == "attack")


def test_twins_speak_as_a_tenant_that_nobody_learned() -> None:
    words = {turn.text[:30] for own in HALVES.unseen.values() for s in own for turn in s.turns if turn.role == "user"}
    twins = [probe for probe in _trial().probes if probe.family == "twin+user"]
    assert all(any(text in turn.text for turn in probe.session.turns for text in words) for probe in twins)


def test_a_user_speaks_again_before_a_later_message_or_at_the_end() -> None:
    turns = chat("east", 0, "talk").turns
    made = {tuple(turn.role for turn in spliced(turns, "X", "user", draw)) for draw in range(20)}
    assert made == {
        ("user", "assistant", "tool", "assistant", "user", "user", "assistant"),
        ("user", "assistant", "tool", "assistant", "user", "assistant", "user"),
    }
    assert all("X" in spliced(turns, "X", "tool", draw)[2].text for draw in range(5))


def test_without_a_marked_message_the_user_s_first_is_the_attack() -> None:
    own = CORPUS.foreign[0]
    plain = tuple(Turn(turn.role, turn.text) for turn in own.turns)
    assert message(msgspec.structs.replace(own, turns=plain)) == message(own) == own.turns[0].text


def test_a_corpus_without_foreign_attacks_has_nothing_for_it() -> None:
    bare = corpus([s for s in CORPUS.sessions if s not in CORPUS.foreign])
    assert splice(bare, split(bare, 0)) == Nothing("splice", "there are no foreign attacks")


def test_attacks_that_say_nothing_cannot_be_spliced() -> None:
    mute = [msgspec.structs.replace(s, turns=(Turn("user", " "),)) for s in CORPUS.foreign]
    bare = corpus([*(s for s in CORPUS.sessions if s not in CORPUS.foreign), *mute])
    assert isinstance(splice(bare, split(bare, 0)), Nothing)
