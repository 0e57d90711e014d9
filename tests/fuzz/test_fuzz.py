"""Some twenty thousand inputs over every decoder, in each run of the tests; `make fuzz` has a million."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.engines import at_random, by_hypothesis
from tests.fuzz.mutate import Mutator
from tests.fuzz.targets import SHARES, TARGETS, Target

# Thousands of inputs: traced, they take far longer, and smaller tests cover the same code.
pytestmark = pytest.mark.no_cover

INPUTS = 1_300


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_comes_is_read_or_refused_and_nothing_is_lost(name: str) -> None:
    target = TARGETS[name]()
    tally = at_random(target, int(INPUTS * SHARES.get(name, 1.0)), seed=7)
    assert tally.failures == {}
    assert len(tally.outcomes) > 1, "what is fed must reach more than one end"


@pytest.mark.parametrize("name", TARGETS)
def test_what_hypothesis_draws_is_read_or_refused(name: str) -> None:
    assert by_hypothesis(TARGETS[name](), 25, seed=7).failures == {}


def test_a_decoder_that_raises_or_loses_is_found_and_its_input_kept(tmp_path: Path) -> None:
    def fragile(data: bytes) -> str:
        value = json.loads(data)
        assert "a" in value, "lost"
        return "read"

    tally = at_random(Target("fragile", (b'{"a":[1,{"b":"c"}]}',), fragile), 400, seed=3, out=tmp_path)
    kinds = " ".join(tally.failures)
    assert "AssertionError" in kinds and "JSONDecodeError" in kinds
    for kind, path in tally.failures.items():
        with pytest.raises((AssertionError, TypeError, ValueError)) as raised:
            fragile(Path(path).read_bytes())
        assert type(raised.value).__name__ in kind


def test_one_seed_gives_the_same_inputs_and_structure_survives_most_changes() -> None:
    seeds = (b'{"role":"user","parts":[{"type":"text","text":"hi"}],"n":1.5}',)

    def drawn() -> list[bytes]:
        random, mutator = Random(11), Mutator(seeds)
        return [mutator.fresh(4_096, random) for _ in range(300)]

    made = drawn()
    assert made == drawn()
    assert len(set(made)) > 250
    assert sum(_is_json(data) for data in made) > 150


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def test_the_command_feeds_as_many_as_it_is_asked_for_and_tells_what_became_of_them(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--inputs", "300", "--only", "feedback", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "summary.json").read_bytes())
    assert (summary["inputs"], summary["failures"], summary["decoders"]) == (300, 0, 1)
    assert sum(summary["of_decoder"]["feedback"]["outcomes"].values()) == 300
