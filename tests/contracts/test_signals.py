"""Every signal keeps the same contracts, and each contract rejects a signal that breaks it."""

import importlib
import inspect
import io
import pkgutil
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

import models
from models.signal import SCALES
from tests.contracts.subjects import COMPOSED, SUBJECTS, TENANTS, Columns, Make, State, Subject

STATE_MAX_BYTES = 32 * 1024
"""A tenant's share, per the design's bound."""
MODEL_MAX_BYTES = 8 * 1024 * 1024
"""Of what all tenants share, which comes with a release."""


def _bytes(arrays: Iterable[NDArray[np.generic]]) -> list[bytes]:
    return [array.tobytes() for array in arrays]


def scoring_changes_nothing(make: Make) -> None:
    subject = make(1)
    columns = subject.draw(np.random.default_rng(2), 100, strange=True)
    state, given = _bytes(subject.state().values()), _bytes(columns)
    first = subject.score(columns)
    assert first.tobytes() == subject.score(columns).tobytes()
    assert _bytes(subject.state().values()) == state
    assert _bytes(columns) == given


def one_seed_gives_one_result(make: Make) -> None:
    first, second = make(3), make(3)
    columns = first.draw(np.random.default_rng(4), 200, strange=False)
    assert _bytes(first.state().values()) == _bytes(second.state().values())
    assert first.score(columns).tobytes() == second.score(columns).tobytes()


def a_score_does_not_depend_on_its_batch(make: Make) -> None:
    subject = make(5)
    rng = np.random.default_rng(6)
    n = 1000
    normal, strange = (subject.draw(rng, n // 2, strange=strange) for strange in (False, True))
    columns = tuple(np.concatenate(pair) for pair in zip(normal, strange, strict=True))
    whole = subject.score(columns)
    assert whole.dtype == np.float32 and whole.shape == (n,)
    for size in (1, 7, 500):
        order = rng.permutation(n)
        for low in range(0, n, size):
            at = order[low : low + size]
            assert subject.score(tuple(column[at] for column in columns)).tobytes() == whole[at].tobytes()


def restored_state_scores_alike(make: Make) -> None:
    subject = make(7)
    stored = io.BytesIO()
    np.savez(stored, **subject.state())  # type: ignore[arg-type]
    stored.seek(0)
    with np.load(stored, allow_pickle=False) as arrays:
        restored = subject.restored({name: arrays[name] for name in arrays.files})
    rng = np.random.default_rng(8)
    for _ in range(3):
        columns = subject.draw(rng, 200, strange=False)
        assert restored.score(columns).tobytes() == subject.score(columns).tobytes()
        subject.teach(columns)
        restored.teach(columns)


def memory_levels_off(make: Make) -> None:
    subject = make(9)
    rng = np.random.default_rng(10)
    sizes = []
    for round_ in range(30):
        subject.teach(subject.draw(rng, 200, strange=round_ % 2 == 1))
        sizes.append(sum(array.nbytes for array in subject.state().values()))
    assert len(set(sizes[10:])) == 1, f"bytes of state by round: {sizes}"
    shared = subject.signal.scale != "tenant"
    assert sizes[-1] <= (MODEL_MAX_BYTES if shared else STATE_MAX_BYTES * TENANTS)


def anomalies_outrank_normal_points(make: Make) -> None:
    subject = make(11)
    rng = np.random.default_rng(12)
    normal, strange = (subject.score(subject.draw(rng, 400, strange=strange)) for strange in (False, True))
    # The area under the ROC curve is the share of pairs in the right order, ties counting half (Mann, Whitney 1947).
    above = (strange[:, None] > normal).mean() + (strange[:, None] == normal).mean() / 2
    assert above > 0.9
    assert np.isfinite(normal).all() and np.isfinite(strange).all()


def it_says_what_it_is(make: Make) -> None:
    signal = make(13).signal
    assert signal.name.isidentifier() and signal.name.islower()
    assert signal.scale in SCALES
    assert inspect.getdoc(type(signal))


CONTRACTS: list[Callable[[Make], None]] = [
    scoring_changes_nothing,
    one_seed_gives_one_result,
    a_score_does_not_depend_on_its_batch,
    restored_state_scores_alike,
    memory_levels_off,
    anomalies_outrank_normal_points,
    it_says_what_it_is,
]


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
@pytest.mark.parametrize("signal", SUBJECTS, ids=lambda signal: signal.__name__)
def test_every_signal_keeps_every_contract(signal: type, contract: Callable[[Make], None]) -> None:
    contract(SUBJECTS[signal])


class Means:
    """Distance of points from the mean of their tenant's earlier ones: the least that keeps every contract."""

    name = "means"
    scale = "tenant"

    def score(
        self, sums: NDArray[np.float64], counts: NDArray[np.int64], rows: NDArray[np.int64], x: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        away = np.abs(x - sums[rows] / np.maximum(counts[rows], 1))
        return away.astype(np.float32), away


@dataclass
class Sound:
    """`Means` under contract; what follows breaks it in one place each."""

    rng: np.random.Generator
    signal: Means = field(default_factory=Means)
    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(TENANTS))
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(TENANTS, np.int64))

    def __post_init__(self) -> None:
        for _ in range(3):
            self.teach(self.draw(self.rng, 100, strange=False))

    def draw(self, rng: np.random.Generator, n: int, *, strange: bool) -> Columns:
        rows = rng.integers(TENANTS, size=n)
        return rows, rows + (5.0 if strange else 0.0) + rng.normal(size=n)

    def score(self, columns: Columns) -> NDArray[np.float32]:
        rows, x = columns
        return self.signal.score(self.sums, self.counts, rows.astype(np.int64), x.astype(np.float64))[0]

    def teach(self, columns: Columns) -> None:
        np.add.at(self.sums, columns[0].astype(np.int64), columns[1].astype(np.float64))
        np.add.at(self.counts, columns[0].astype(np.int64), 1)

    def state(self) -> State:
        return {"sums": self.sums.copy(), "counts": self.counts.copy()}

    def restored(self, state: State) -> Subject:
        other = type(self)(np.random.default_rng(0))
        other.sums, other.counts = state["sums"].astype(np.float64), state["counts"].astype(np.int64)
        return other


class LearnsWhileScoring(Sound):
    def score(self, columns: Columns) -> NDArray[np.float32]:
        score = super().score(columns)
        self.teach(columns)
        return score


class ForgetsItsSeed(Sound):
    def __post_init__(self) -> None:
        self.rng = np.random.default_rng()
        super().__post_init__()


class LooksAtItsBatch(Sound):
    def score(self, columns: Columns) -> NDArray[np.float32]:
        score = super().score(columns)
        score -= score.mean() * np.float32(1e-4)
        return score


class StoresTooLittle(Sound):
    def state(self) -> State:
        return {"sums": self.sums.astype(np.float16), "counts": self.counts.copy()}


class RemembersEverything(Sound):
    def teach(self, columns: Columns) -> None:
        super().teach(columns)
        self.heard = [*getattr(self, "heard", []), columns[1]]

    def state(self) -> State:
        return super().state() | {"heard": np.concatenate(self.heard)}


class SeesNothing(Sound):
    def score(self, columns: Columns) -> NDArray[np.float32]:
        return np.abs(np.sin(1e3 * columns[1].astype(np.float64))).astype(np.float32)


class MeansOfNobody(Means):
    """On no known scale."""

    scale = "user"


class SaysNothingKnown(Sound):
    def __post_init__(self) -> None:
        self.signal = MeansOfNobody()
        super().__post_init__()


BROKEN: dict[Callable[[Make], None], type[Sound]] = {
    scoring_changes_nothing: LearnsWhileScoring,
    one_seed_gives_one_result: ForgetsItsSeed,
    a_score_does_not_depend_on_its_batch: LooksAtItsBatch,
    restored_state_scores_alike: StoresTooLittle,
    memory_levels_off: RemembersEverything,
    anomalies_outrank_normal_points: SeesNothing,
    it_says_what_it_is: SaysNothingKnown,
}


def _make(subject: type[Sound]) -> Make:
    return lambda seed: subject(np.random.default_rng(seed))


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
def test_a_sound_signal_keeps_every_contract(contract: Callable[[Make], None]) -> None:
    contract(_make(Sound))


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
def test_every_contract_rejects_the_signal_that_breaks_it(contract: Callable[[Make], None]) -> None:
    with pytest.raises(AssertionError):
        contract(_make(BROKEN[contract]))


def _signals(modules: Iterable[types.ModuleType]) -> set[type]:
    """Classes of these modules that score."""
    return {
        value
        for module in modules
        for _, value in inspect.getmembers(module, inspect.isclass)
        if value.__module__ == module.__name__
        and callable(getattr(value, "score", None))
        and not getattr(value, "_is_protocol", False)
    }


def _modules() -> list[types.ModuleType]:
    names = [f"models.{found.name}" for found in pkgutil.iter_modules(models.__path__) if not found.ispkg]
    return [importlib.import_module(name) for name in names]


def test_every_signal_is_under_contract() -> None:
    assert _signals(_modules()) - COMPOSED == set(SUBJECTS)
    assert not COMPOSED & set(SUBJECTS)


def test_a_signal_that_is_not_listed_is_noticed() -> None:
    module = types.ModuleType("models.unlisted")
    unlisted = type("Unlisted", (Means,), {"__module__": module.__name__})
    module.Unlisted = unlisted  # type: ignore[attr-defined]
    assert _signals([*_modules(), module]) - COMPOSED - set(SUBJECTS) == {unlisted}
