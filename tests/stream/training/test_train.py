"""One input and one seed give one release, and what it measured was held out."""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from models.attack_classifier import CLASSES
from models.text_models import TextModels
from stream.errors import UsageError
from stream.release import Release
from stream.state.schema import KINDS, KNOWN_ATTACK, LIMITS, REMEMBERED, RING, WEIGHTS, WEIGHTS_WITHOUT_EXAMPLES
from stream.training.effort import Effort
from stream.training.events import TrainingEvents, arrange
from stream.training.gather import Tally, gather_files
from stream.training.said import collect_texts
from stream.training.teaching import HardNegatives
from stream.training.texts import Again
from stream.training.train import Trained, train
from tests.doubles import Counts, WordEmbedder
from tests.stream.training.captures import SETTINGS, corpus, session, write_lines

QUICK = Effort(epochs=1, steps_min=8, adapter_steps=8, passes=2, splices=0.1)


def arranged(path: Path, lines: list[dict[str, object]]) -> TrainingEvents:
    return arrange(gather_files([write_lines(path, lines)], "corpus", SETTINGS, Tally()), SETTINGS.core.future_ms)


def trained(events: TrainingEvents, *, labelled: bool = True, seed: int = 3, **given: Any) -> Trained:
    embedder = WordEmbedder()
    return train(events, embedder, "words-32", SETTINGS, seed=seed, labelled=labelled, **{"effort": QUICK, **given})


def known_to(release: Release) -> dict[str, bytes]:
    """What a release holds of attacks."""
    arrays = release.texts.to_arrays()
    return {name: array.tobytes() for name, array in arrays.items() if name.startswith(("known_attack", "attack_"))}


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> TrainingEvents:
    return arranged(tmp_path_factory.mktemp("corpus") / "c.jsonl", corpus(60))


@pytest.fixture(scope="module")
def whole(events: TrainingEvents) -> Trained:
    return trained(events)


def test_a_release_knows_every_tenant_of_its_input(whole: Trained) -> None:
    release = whole.release
    assert release.warm_rows == release.adapters == {"team-0": 0, "team-1": 1, "team-2": 2}
    assert release.warm["sessions"].tolist() == [20, 20, 20]
    assert release.warm["maxima"].shape == (3, len(KINDS), RING)
    assert release.bank.shape.tenants == 3
    assert release.calibration.kinds == KINDS


def test_tenants_start_with_maxima_of_sessions_that_were_held_out(whole: Trained, events: TrainingEvents) -> None:
    counts = whole.release.warm["maxima_count"]
    assert (counts[:, REMEMBERED] == 20).all()
    assert counts.sum() == 20 * 3 * len(REMEMBERED)
    # Sentences that were heard, word for word, are at distance 0: these were not.
    assert (whole.release.warm["maxima"][:, 0, :20].mean(axis=1) > 0.05).all()


def test_what_signals_said_of_the_traffic_that_they_learned_is_no_normal_of_a_tenant(whole: Trained) -> None:
    counts = whole.release.warm["drift_counts"]
    # Sizes and compositions are as they were heard; of the signals' own surprise there is nothing to compare with.
    assert not counts[:, : len(KINDS)].any()
    assert counts[:, len(KINDS) :].any()
    assert not whole.release.warm["drift_detectors"][:, : len(KINDS)].any()


def test_the_seed_decides_the_bank_and_nothing_else_is_left_to_chance(whole: Trained, events: TrainingEvents) -> None:
    other = trained(events, seed=4)
    assert not np.array_equal(other.release.bank.arrays["encoder.weight"], whole.release.bank.arrays["encoder.weight"])
    assert np.array_equal(other.release.warm["memory"], whole.release.warm["memory"])
    same = trained(events)
    for name, column in whole.release.warm.items():
        assert np.array_equal(same.release.warm[name], column)


def adapters(made: Trained) -> dict[str, np.ndarray]:
    return {name: array for name, array in made.release.bank.arrays.items() if name.startswith("adapter.")}


def test_the_population_alone_leaves_adapters_zero_and_they_can_be_fitted_on_it_afterwards(tmp_path: Path) -> None:
    # 12 windows of each tenant in a part are more than the 8 that adapters take; 60 steps teach the backbone enough.
    events = arranged(tmp_path / "c.jsonl", corpus(90))
    population = trained(events, effort=Effort(epochs=1, steps_min=60, adapter_steps=0))
    assert population.metrics["tenants_adapted"] == 0
    assert population.release.bank.shape.tenants == 3
    assert not any(array.any() for array in adapters(population).values())
    base = population.release.bank.arrays
    effort = replace(QUICK, adapter_steps=64)
    made = trained(events, base=population.release, adapters_only=True, effort=effort)
    # A tenant keeps its adapter only where it gains by it on what was held out, which of so little not all do.
    moved = [array.any(axis=(1, 2)) for name, array in adapters(made).items() if name.endswith(".up")]
    assert 1 <= made.metrics["tenants_adapted"] == np.logical_or.reduce(moved).sum()
    for name, array in made.release.bank.arrays.items():
        assert name.startswith("adapter.") or np.array_equal(array, base[name])
    # What calibrates was scored with adapters too, of fits that did not see it.
    sequence = KINDS.index("sequence")
    assert (made.release.warm["maxima"] != population.release.warm["maxima"])[:, sequence].any()


def test_held_out_sessions_are_flagged_as_rarely_as_the_operating_point_says(whole: Trained) -> None:
    assert set(whole.metrics) == {"held_out_flagged_at_0.01", "held_out_flagged_at_0.05", "tenants_adapted"}
    assert 0 <= whole.metrics["held_out_flagged_at_0.01"] <= whole.metrics["held_out_flagged_at_0.05"] <= 0.15


def test_what_nobody_judged_is_not_learned_when_it_is_strange(tmp_path: Path) -> None:
    rng = Random(5)
    strange = [" ".join("".join(rng.choices("xyzqjk", k=9)) for _ in range(40)) for _ in range(5)]
    attack = session(84, turns=[{"role": "user", "text": "\n".join(strange)}])
    # The tenant's events 1 to 56, 57, and 58 to 65: it learns at its 64th, what it has not heard too much after.
    events = arranged(tmp_path / "c.jsonl", [*corpus(84), attack, *(session(i) for i in range(85, 89))])
    owner = int.from_bytes(blake2b(b"s84", digest_size=8).digest(), "big")
    for labelled in (True, False):
        assert (owner in trained(events, labelled=labelled).release.warm["owners"][0].tolist()) is labelled


def test_one_session_alone_cannot_be_calibrated_by(tmp_path: Path) -> None:
    events = arranged(tmp_path / "c.jsonl", [session(0)])
    with pytest.raises(UsageError, match=r"at least two sessions of different tasks, .* it holds one\. Name more"):
        trained(events)


def test_input_without_tools_trains_all_the_same(tmp_path: Path) -> None:
    lines = [session(i, turns=[{"role": "user", "text": f"hello number {i}"}]) for i in range(12)]
    release = trained(arranged(tmp_path / "c.jsonl", lines)).release
    counts = release.warm["maxima_count"][0]
    assert (counts[REMEMBERED] == 12).all()
    # Where no tool speaks nobody is taken for another, and nothing says what an attack is.
    assert (release.texts.role_surprise, release.texts.classes) == (None, ())


def test_written_examples_teach_a_classifier_where_nobody_has_labelled_an_attack_and_no_tool_speaks(
    tmp_path: Path,
) -> None:
    lines = [session(i, turns=[{"role": "user", "text": f"hello number {i}"}]) for i in range(12)]
    settings = replace(SETTINGS, learning=replace(SETTINGS.learning, examples=True))
    events = arranged(tmp_path / "c.jsonl", lines)
    made = train(events, WordEmbedder(), "words-32", settings, seed=3, labelled=True, effort=QUICK)
    texts, calibration = made.release.texts, made.release.calibration
    assert (texts.role_surprise, texts.classes) == (None, CLASSES)
    assert texts.direction is not None
    assert {name: len(values) > 1000 for name, values in made.known.look_alikes.items()} == {
        "known_attack": True,
        "tool_known_attack": True,
    }
    # Of one tenant nobody knows what any tenant's calls are like: volume weighs as it does without that.
    assert made.release.volume.anyone is None
    alone = WEIGHTS | {"volume": WEIGHTS_WITHOUT_EXAMPLES["volume"]}
    assert alone["volume"] < WEIGHTS["volume"]
    assert dict(zip(KINDS, calibration.weights.tolist(), strict=True)) == alone
    assert calibration.limits[KINDS.index("novelty")] == LIMITS["novelty"]


def test_a_base_s_classifier_stays_with_the_tails_that_were_measured_when_it_was_held_out(
    whole: Trained, events: TrainingEvents
) -> None:
    settings = replace(SETTINGS, learning=replace(SETTINGS.learning, examples=True))
    # A base that knows of no attack has nothing that could stay.
    base = train(
        events, WordEmbedder(), "words-32", settings, seed=3, labelled=True, effort=QUICK, base=whole.release
    ).release
    assert base.texts.attacks is not None and base.texts.direction is not None
    assert base.volume.anyone is not None
    assert dict(zip(KINDS, base.calibration.weights.tolist(), strict=True)) == WEIGHTS
    for given in (settings, SETTINGS):
        again = train(events, WordEmbedder(), "words-32", given, seed=4, labelled=True, effort=QUICK, base=base).release
        assert known_to(again) == known_to(base)
        assert again.calibration.tails[KNOWN_ATTACK] is base.calibration.tails[KNOWN_ATTACK]
        assert np.array_equal(again.calibration.weights, base.calibration.weights)
    judged = WordEmbedder().encode(["hello there my friend"])
    hard = HardNegatives(judged, ["s1"])
    taught = train(
        events, WordEmbedder(), "words-32", settings, seed=4, labelled=True, effort=QUICK, base=base, hard=hard
    ).release
    assert known_to(taught).keys() == known_to(base).keys() and known_to(taught) != known_to(base)


def test_without_examples_nothing_is_known_of_attacks_and_novelty_says_more(whole: Trained) -> None:
    assert (whole.release.texts.attacks, whole.release.texts.direction) == (None, None)
    assert not whole.known.look_alikes
    assert np.isinf(whole.release.calibration.limits).all()
    weights = dict(zip(KINDS, whole.release.calibration.weights.tolist(), strict=True))
    assert weights == WEIGHTS_WITHOUT_EXAMPLES
    assert weights["novelty"] > WEIGHTS["novelty"]


def test_sessions_a_day_are_those_of_the_days_that_the_input_covers(whole: Trained, events: TrainingEvents) -> None:
    # 60 sessions 10 minutes apart are less than a day, which counts as one.
    assert events.last_ms - events.first_ms < 86_400_000
    assert whole.release.sessions_per_day == {"team-0": 20.0, "team-1": 20.0, "team-2": 20.0}
    fast = TrainingEvents(
        **{name: getattr(events, name) for name in events.__slots__} | {"last_ms": events.first_ms + 8 * 86_400_000}
    )
    assert trained(fast).release.sessions_per_day["team-1"] == 2.5


def test_a_release_has_text_models_and_units_of_volume_of_its_own(whole: Trained, events: TrainingEvents) -> None:
    release = whole.release
    assert release.texts.role_surprise is not None
    assert release.texts.attacks is None
    # Of tenants within their grace there would be nothing to measure it by.
    assert (release.volume.unit > 0).all()


def test_a_transformer_is_taught_calibrated_and_part_of_the_release(events: TrainingEvents) -> None:
    made = trained(events, again=Again(Counts(), 0.0))
    assert made.release.texts.second is not None
    assert made.release.texts.second.gate == 0.0
    loaded = TextModels.from_arrays(made.release.texts.to_arrays())
    assert loaded.second is not None
    turns: list[dict[str, str]] = [turn for line in corpus(20) for turn in line["turns"]]
    tools = WordEmbedder().encode([turn["text"] for turn in turns if turn["text"]])
    plain, again = loaded.score(tools), loaded.looking_again(Counts()).score(tools)
    heard = plain[:, 0] >= 0.0
    assert 0 < heard.sum() < len(heard)
    assert np.array_equal(again[~heard], plain[~heard])
    assert (again[heard, 0] != plain[heard, 0]).all()


def test_processes_are_not_forked_from_one_that_uses_cuda(
    events: TrainingEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    with pytest.raises(UsageError, match="--nproc must be 1 while"):
        trained(events, processes=2)


def test_a_session_that_does_not_teach_is_calibrated_on_and_leaves_nothing_behind(tmp_path: Path) -> None:
    odd = "zxqj kwvy pfgh unheard of words that no other session has"
    lines = corpus(60)
    lines[7]["turns"][0]["text"] = odd
    gathered = list(gather_files([write_lines(tmp_path / "c.jsonl", lines)], "corpus", SETTINGS, Tally()))
    mute = [replace(event, learns=b'"session":"s7"' not in (event.record.value or b"")) for event in gathered]
    events = arrange(mute, SETTINGS.core.future_ms)
    said = collect_texts(events, WordEmbedder(), SETTINGS)
    whole = collect_texts(arrange(gathered, SETTINGS.core.future_ms), WordEmbedder(), SETTINGS)
    assert len(said.role) < len(whole.role)
    release = trained(events).release
    # Its tenant, team-1, has heard 19 of its 20 sessions, and has all of their maxima.
    assert release.warm["sessions"].tolist() == [20, 19, 20]
    assert release.warm["maxima_count"][1].max() == 20


def test_a_backbone_that_is_kept_is_the_same_while_the_rest_is_learned_anew(
    whole: Trained, events: TrainingEvents
) -> None:
    again = trained(events, seed=4, backbone=whole.release.bank.arrays).release
    for name in ("encoder.weight", "bottleneck.weight", "expand.weight", "decoder.weight"):
        assert np.array_equal(again.bank.arrays[name], whole.release.bank.arrays[name])
    assert again.texts.role_surprise is not None
    once = whole.release.texts.role_surprise
    assert once is not None
    # Of another seed: what users and tools say is learned anew.
    assert not np.array_equal(again.texts.role_surprise.to_arrays()["weights"], once.to_arrays()["weights"])
