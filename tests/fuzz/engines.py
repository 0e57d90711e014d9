"""Ways to make inputs for a decoder: at random, and by Hypothesis; `guided.py` has the third."""

from __future__ import annotations

import json
import resource
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from random import Random

from tests.fuzz.mutate import Mutator
from tests.fuzz.targets import Target

BYTES_MAX = 16_384
"""Of an input; what only size does is tested by itself."""
CORPUS_MAX = 400
_FAILURES_MAX = 50


@dataclass(slots=True)
class Tally:
    """What became of a decoder's inputs."""

    inputs: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    """What failed, by its kind and place -> the file that holds the input, or its beginning."""
    slowest_ms: float = 0.0
    """Of the processor's time."""
    memory_mb: int = 0

    def add(self, other: Tally) -> None:
        """Take another one's figures too."""
        self.inputs += other.inputs
        self.outcomes = dict(Counter(self.outcomes) + Counter(other.outcomes))
        self.failures |= other.failures
        self.slowest_ms = max(self.slowest_ms, other.slowest_ms)
        self.memory_mb = max(self.memory_mb, other.memory_mb)

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(self)))
        part.replace(path)


def tried(target: Target, data: bytes, tally: Tally, out: Path | None) -> None:
    """Feed one input; whatever is raised is noted, and kept in `out`."""
    began = time.process_time()
    try:
        outcome = target.check(data)
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        outcome = "failure"
        where = traceback.extract_tb(error.__traceback__)[-1]
        kind = f"{target.name}: {type(error).__name__} at {Path(where.filename).name}:{where.lineno}"
        if kind not in tally.failures and len(tally.failures) < _FAILURES_MAX:
            tally.failures[kind] = _kept(target, data, out)
    tally.inputs += 1
    tally.outcomes[outcome] = tally.outcomes.get(outcome, 0) + 1
    tally.slowest_ms = max(tally.slowest_ms, (time.process_time() - began) * 1_000)


def _kept(target: Target, data: bytes, out: Path | None) -> str:
    if out is None:
        return repr(data[:400])
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{target.name}-{sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return str(path)


def at_random(target: Target, inputs: int, seed: int, out: Path | None = None) -> Tally:
    """The seeds, then changed ones, and some changed again."""
    tally, random = Tally(), Random(seed)
    mutator = Mutator(target.seeds, is_json=target.is_json)
    corpus = list(target.seeds)
    for data in target.seeds[:inputs]:
        tried(target, data, tally, out)
    while tally.inputs < inputs:
        # Mostly one step from what is read: what is broken already tells little more.
        grown = random.random() < 0.3
        data = mutator.mutate(random.choice(corpus if grown else target.seeds), BYTES_MAX, random)
        if len(corpus) < CORPUS_MAX:
            corpus.append(data)
        tried(target, data, tally, out)
    tally.memory_mb = memory_mb()
    return tally


def by_hypothesis(target: Target, inputs: int, seed: int, out: Path | None = None) -> Tally:
    """Changes of seeds, and bytes alone, as Hypothesis draws them."""
    from hypothesis import HealthCheck, given, settings
    from hypothesis import seed as seeded
    from hypothesis import strategies as st

    tally = Tally()
    mutator = Mutator(target.seeds, is_json=target.is_json)
    changed = st.builds(
        lambda random: mutator.fresh(BYTES_MAX, random), st.randoms(use_true_random=False, note_method_calls=False)
    )

    @seeded(seed)
    @settings(max_examples=inputs, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.one_of(changed, changed, st.binary(max_size=300)))
    def feed(data: bytes) -> None:
        tried(target, data, tally, out)

    feed()
    tally.memory_mb = memory_mb()
    return tally


def memory_mb() -> int:
    """The most that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
