"""`tidegate evaluate` on a made-up corpus: each judged session has its line, and nothing is done twice."""

from __future__ import annotations

import shutil
from argparse import Namespace
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from evaluation.command import protocols, run
from evaluation.parts import Parts
from evaluation.report.facts import Facts
from evaluation.seed_process import Order
from evaluation.seed_run import SEEN, SeedRun, parts_of, trials_of
from evaluation.systems.registry import LABELLED, PRODUCT, Shared
from stream.errors import EnvironmentFault, UsageError
from tests.evaluation.folder import write_corpus
from tests.evaluation.office import corpus, sessions
from tests.evaluation.systems.small import QUICK, SETTINGS, embedder
from tests.stream.releases import write

KEYS = {
    "protocol", "seed", "system", "tenant", "session", "family", "task", "label", "score", "flagged",
    "first_finding_turn",
}  # fmt: skip
"""Of a line of `sessions.jsonl`, as the interface names them."""


def given(folder: Path, out: Path, **more: Any) -> Namespace:
    values = {
        "arrivals": None,
        "only": "session,slices",
        "seeds": 1,
        "first_seed": 0,
        "embedder": None,
        "stream_events": 1000,
    }
    return Namespace(corpus=folder, out=out, **{**values, "release": None, "systems": None, **more})


def lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.timeout(300)
def test_a_run_that_was_broken_off_ends_as_one_that_was_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "release", embedder().space_id)
    folder, out = write_corpus(tmp_path / "corpus", sessions()), tmp_path / "out"
    arguments = given(folder, out, release=str(tmp_path / "release"))
    assert run(SETTINGS, arguments) == 0
    whole, report = (out / "sessions.jsonl").read_bytes(), orjson.loads((out / "report.json").read_bytes())
    rows = lines(out / "sessions.jsonl")
    assert all(row.keys() >= KEYS for row in rows)
    systems = Counter((row["protocol"], row["system"]) for row in rows)
    # With a given release nothing is trained: neither labels are learned nor signals taken away.
    assert not any(system.startswith("tidegate") and system != PRODUCT for _, system in systems)
    assert len({count for (protocol, _), count in systems.items() if protocol == "session"}) == 1
    assert {row["label"] for row in rows} == {"attack", "benign"}
    assert (out / "report.html").stat().st_size > 10_000
    # As if it had been killed while it judged with the product.
    shutil.rmtree(out / "parts" / f"session.0.{PRODUCT}")
    capsys.readouterr()
    assert run(SETTINGS, arguments) == 0
    said = capsys.readouterr()
    assert "[1/1] session, seed 0: tidegate" in said.err
    assert "[2/" not in said.err
    assert Counter((out / "sessions.jsonl").read_bytes().splitlines()) == Counter(whole.splitlines())
    again = orjson.loads((out / "report.json").read_bytes())
    assert again["headline"] == report["headline"]


@pytest.mark.timeout(300)
def test_look_alikes_are_judged_seen_and_unseen_and_too_few_labels_are_said(tmp_path: Path) -> None:
    parts = Parts.open(tmp_path / "parts", "x")[0]
    # Beside written examples a single label would be enough.
    settings = replace(SETTINGS, learning=replace(SETTINGS.learning, examples=False))

    def shared() -> Shared:
        return Shared(settings, embedder(), effort=QUICK)

    steps: list[str] = []
    one = SeedRun(corpus(), 0, 0, settings, shared, parts, steps.append, lambda _: None)
    one.run(trials_of("hard_negatives"), released=False)
    expected = {f"{trial}.0.{system}" for trial in ("hard_negatives", SEEN) for system in (PRODUCT, LABELLED)}
    order = Order.of(settings, given(tmp_path, tmp_path), ("hard_negatives",), 0.0)
    assert set(order.names(0, 0, released=False)) == expected
    assert all(parts.has(name) for name in expected)
    assert steps[0] == "hard_negatives, seed 0: tidegate"
    lines_of = b"".join(parts.rows(sorted(expected))).splitlines()
    assert {row["family"] for row in map(orjson.loads, lines_of)} >= {"hard_negative+seen", "hard_negative+unseen"}
    # A classifier needs 50 segments of a class; the office has 24 attacks of a sentence each.
    absent = parts.facts(sorted(expected), Facts()).absent
    assert {each.system for each in absent} == {LABELLED}
    assert "an attack classifier needs benign segments and 50 of one class" in absent[0].reason


def test_a_part_belongs_to_one_trial_seed_and_system() -> None:
    names = [name for trial in (*trials_of("paired"), *trials_of("hard_negatives")) for place in (0, 1)
             for name in parts_of(trial, place, place, released=False).values()]  # fmt: skip
    assert len(set(names)) == len(names)


def test_systems_are_chosen_by_pattern_and_tidegate_is_always_among_them(tmp_path: Path) -> None:
    order = Order.of(SETTINGS, given(tmp_path, tmp_path, systems="tidegate-volume,ec*"), ("paired", "stream"), 0.0)
    names = order.names(0, 3, released=False)
    assert names[:3] == ["paired.3.tidegate", "paired.3.tidegate-volume", "paired.3.ecod"]
    everything = Order.of(SETTINGS, given(tmp_path, tmp_path), ("paired", "stream"), 0.0).names(0, 3, released=False)
    assert set(names[:3]) < set(everything)
    # Two weeks are one part for all systems: those of others are another one.
    assert names[3:] != everything[-1:] == ["stream.3.all"]
    with pytest.raises(UsageError, match="got nobody"):
        Order.of(SETTINGS, given(tmp_path, tmp_path, systems="ecod,nobody"), ("paired",), 0.0)


def test_splits_may_begin_at_another_seed(tmp_path: Path) -> None:
    write(tmp_path / "release", embedder().space_id)
    folder, out = write_corpus(tmp_path / "corpus", sessions()), tmp_path / "out"
    more = {"release": str(tmp_path / "release"), "only": "session", "seeds": 2, "first_seed": 5, "systems": "length"}
    assert run(SETTINGS, given(folder, out, **more)) == 0
    assert {row["seed"] for row in lines(out / "sessions.jsonl")} == {5, 6}
    assert orjson.loads((out / "report.json").read_bytes())["protocols"]["session"]["seeds"] == [5, 6]


def test_what_learns_labels_comes_last_and_on_two_seeds(tmp_path: Path) -> None:
    order = Order.of(SETTINGS, given(tmp_path, tmp_path), ("session", "stream"), 0.0)
    first = order.missing(0, 0, released=False, labelled=False)
    assert not any(name.endswith(LABELLED) for name in first)
    assert first[-1] == "stream.0.all"
    last = [order.missing(place, place, released=False, labelled=True) for place in range(3)]
    assert last == [[f"session.0.{LABELLED}"], [f"session.1.{LABELLED}"], []]


def test_a_folder_that_cannot_be_written_is_the_environment_s_fault(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "corpus", sessions())
    (tmp_path / "out").write_text("a file")
    with pytest.raises(EnvironmentFault, match=r"--out .* must be a folder that can be written"):
        run(SETTINGS, given(folder, tmp_path / "out", only="session"))


def test_arrivals_in_which_nobody_calls_are_refused_before_anything_begins(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "corpus", sessions())
    (tmp_path / "arrivals").mkdir()
    with pytest.raises(UsageError, match="--arrivals must be a folder with clients"):
        run(SETTINGS, given(folder, tmp_path / "out", only="stream", arrivals=tmp_path / "arrivals"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("only", ["", "paired,everything", ","])
def test_a_protocol_that_is_none_is_refused(only: str) -> None:
    with pytest.raises(UsageError, match="--only must name some of paired, splice"):
        protocols(only)


def test_the_stream_needs_arrivals_and_a_corpus_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--arrivals must name a folder"):
        run(SETTINGS, given(tmp_path, tmp_path / "out", only=None))
    with pytest.raises(UsageError, match="--corpus must be a folder"):
        run(SETTINGS, given(tmp_path / "none", tmp_path / "out"))
    with pytest.raises(UsageError, match="--seeds must be at least 1; got 0"):
        run(SETTINGS, given(tmp_path, tmp_path / "out", seeds=0))
