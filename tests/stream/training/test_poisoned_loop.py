"""A loop that is lied to does not learn it: what the audit lets through, the gate's replay refuses.

The drill `tests.drills.poisoned_loop` measures the same over more seeds, and with every challenger trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import pytest

from sample.records import ATTACKS, TRAIN
from schemas.label import label_key
from stream.config import EmbedderSettings, Settings
from stream.release import Release
from stream.runtime.embedders import load_embedder
from stream.training.audit import Known
from stream.training.effort import Effort
from stream.training.gate import HELD_OUT_MIN, decide
from stream.training.gather import sessions_of
from tests.drills import poisoned_loop as drill

TENANTS = ("hardneg-code", "mint-gsm8k", "woz-it", "rapidapi-assistant")
EFFORT = Effort(epochs=1, steps_min=5, adapter_steps=0, passes=2, splices=0.1)
SEED = 1


@dataclass(frozen=True)
class Loop:
    world: drill.World
    champion: Release
    findings: list[drill.Found]
    known: Known


@pytest.fixture(scope="module")
def loop() -> Loop:
    settings = Settings(embedder=EmbedderSettings(device="cpu"))
    benign = [session for session in sessions_of(TRAIN) if session.tenant in TENANTS][::4]
    attacks = list(sessions_of(ATTACKS))
    world = drill.world(settings, load_embedder(settings.embedder), benign, attacks, SEED)
    champion = drill.champion_of(world, EFFORT)
    return Loop(world, champion, drill.found(world, champion), drill.known_of(world))


pytestmark = pytest.mark.timeout(1200)


@pytest.mark.parametrize("draw", range(3))
def test_clean_verdicts_pass_the_audit(loop: Loop, draw: int) -> None:
    labels = drill.verdicts(loop.findings, "clean", Random(draw))
    found = drill.audited(loop.world, labels, loop.known)
    assert (found.refused, found.set_aside) == (None, {})
    assert found.kept == {label_key(each.finding_uid, each.analyst) for each in labels}


@pytest.mark.parametrize("draw", range(3))
def test_three_verdicts_of_ten_wrong_at_random_are_refused(loop: Loop, draw: int) -> None:
    found = drill.audited(loop.world, drill.verdicts(loop.findings, "noisy", Random(draw)), loop.known)
    assert found.refused is not None
    assert found.kept == frozenset()


@pytest.mark.parametrize("draw", range(3))
@pytest.mark.parametrize("scenario", ["hostile", "alone"])
def test_an_analyst_who_calls_attacks_benign_is_named_and_nobody_else(loop: Loop, scenario: str, draw: int) -> None:
    found = drill.audited(loop.world, drill.verdicts(loop.findings, scenario, Random(draw)), loop.known)
    assert list(found.set_aside) == [drill.HOSTILE]
    assert found.refused is None
    assert all(drill.HOSTILE.encode() not in key for key in found.kept)


def test_of_clean_verdicts_enough_attacks_are_held_out_for_the_gate_and_none_of_them_teaches(loop: Loop) -> None:
    labels = drill.verdicts(loop.findings, "clean", Random(0))
    attacks = {(each.tenant, each.session) for each in labels if each.teaches == "attack"}
    kept_back = drill.held_back(labels)
    assert HELD_OUT_MIN <= len(kept_back) < len(attacks) / 2
    assert kept_back < attacks


def test_without_the_audit_the_gate_refuses_what_was_learned_from_a_hostile_analyst(loop: Loop) -> None:
    labels = drill.verdicts(loop.findings, "alone", Random(0))
    challenger, counted = drill.challenger_of(loop.world, labels, None, EFFORT)
    before, after = drill.judged_by_both(loop.world, loop.champion, challenger, counted)
    report = decide(before, after, loop.world.settings.gate, benign_min=20)
    assert not report.promote
    assert {check.name for check in report.checks if not check.ok} >= {"recall", "recall_earlier"}
    harm = drill.in_truth(loop.world, loop.champion)["recall_unseen"]
    assert drill.in_truth(loop.world, challenger)["recall_unseen"] < harm
