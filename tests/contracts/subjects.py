"""Signals, dressed so that one set of contracts can drive them all."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.autoencoder import SequenceBank
from models.autoencoder_torch import TorchSequenceBank
from models.novelty import Lesson, Memory, Novelty
from models.signal import LearningSignal, Signal
from models.training.autoencoder import Fit, fit
from tests.models.banks import cycling_windows

TENANTS = 6
Columns = tuple[NDArray[np.generic], ...]
State = dict[str, NDArray[np.generic]]


class Subject(Protocol):
    """A signal with its state, and traffic that it can tell apart."""

    @property
    def signal(self) -> Signal:
        """What is under contract."""

    def draw(self, rng: np.random.Generator, n: int, *, strange: bool) -> Columns:
        """Inputs (n) of mixed tenants, as `score` takes them."""

    def score(self, columns: Columns) -> NDArray[np.float32]:
        """Scores (n,)."""

    def teach(self, columns: Columns) -> None:
        """What the stream does with inputs after scoring them."""

    def state(self) -> State:
        """All that scores depend on."""

    def restored(self, state: State) -> "Subject":
        """Another subject with this state."""


Make = Callable[[int], Subject]


@dataclass
class BankSubject:
    """Sessions that go round their tools; a strange one repeats its last event, swollen."""

    signal: Signal
    build: Callable[[State], Signal]
    arrays: State

    @classmethod
    def make(cls, seed: int, build: Callable[[State], Signal]) -> "BankSubject":
        how = Fit(hidden=16, bottleneck=8, epochs=1, steps_min=250)
        arrays = fit(*cycling_windows(seed, 800), seed=seed, how=how, tenants=TENANTS)
        rng = np.random.default_rng(seed)
        for name in [name for name in arrays if name.startswith("adapter.")]:
            arrays[name] = rng.integers(-3, 4, arrays[name].shape).astype(np.int8)
        return cls(build(arrays), build, arrays)

    def draw(self, rng: np.random.Generator, n: int, *, strange: bool) -> Columns:
        windows, lengths = cycling_windows(int(rng.integers(1 << 30)), n)
        if strange:
            windows[:, -1, 4] += 40
            windows[:, -1, :3] = np.roll(windows[:, -1, :3], 1, axis=1)
        return windows, lengths, rng.integers(-1, TENANTS, n)

    def score(self, columns: Columns) -> NDArray[np.float32]:
        return self.signal.score(*columns)[0]

    def teach(self, columns: Columns) -> None:
        """Adapters come with releases: the stream teaches a bank nothing."""

    def state(self) -> State:
        return {name: array.copy() for name, array in self.arrays.items()}

    def restored(self, state: State) -> "BankSubject":
        return BankSubject(self.build(state), self.build, state)


@dataclass
class NoveltySubject:
    """Tenants that keep to their own few topics in two roles; strange is any other topic."""

    signal: Novelty
    memory: Memory
    topics: NDArray[np.float64]
    """(TENANTS, 2, 4, d)."""

    @classmethod
    def make(cls, seed: int) -> "NoveltySubject":
        rng = np.random.default_rng(seed)
        signal = Novelty(slots=24, dim=32)
        subject = cls(signal, signal.empty(TENANTS), rng.normal(size=(TENANTS, 2, 4, 32)))
        for _ in range(4):
            subject.teach(subject.draw(rng, 200, strange=False))
        return subject

    def draw(self, rng: np.random.Generator, n: int, *, strange: bool) -> Columns:
        rows, role, topic = rng.integers(TENANTS, size=n), rng.integers(2, size=n), rng.integers(4, size=n)
        centre = rng.normal(size=(n, 32)) if strange else self.topics[rows, role, topic]
        x = centre + 0.2 * rng.normal(size=(n, 32))
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        return rows, role.astype(np.int8), np.rint(127 * unit).astype(np.int8)

    def score(self, columns: Columns) -> NDArray[np.float32]:
        return _score(self.signal, self.memory, columns)[0]

    def teach(self, columns: Columns) -> None:
        rows, role, x = columns
        _, slot = _score(self.signal, self.memory, columns)
        owner = np.arange(len(rows)).astype(np.uint64)
        lesson = Lesson(rows.astype(np.int64), role.astype(np.int8), slot, x.astype(np.int8), owner)
        events = np.bincount(lesson.tenant, minlength=TENANTS)
        learner: LearningSignal = self.signal
        learner.learn(self.memory, lesson, events, np.ones(TENANTS, bool))

    def state(self) -> State:
        return {field.name: getattr(self.memory, field.name).copy() for field in fields(Memory)}

    def restored(self, state: State) -> "NoveltySubject":
        memory = self.signal.empty(TENANTS)
        for name, array in state.items():
            getattr(memory, name)[:] = array
        return replace(self, memory=memory)


def _score(signal: Signal, memory: Memory, columns: Columns) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    return signal.score(memory, *columns)


SUBJECTS: dict[type, Make] = {
    Novelty: NoveltySubject.make,
    SequenceBank: lambda seed: BankSubject.make(seed, SequenceBank),
    TorchSequenceBank: lambda seed: BankSubject.make(seed, lambda arrays: TorchSequenceBank(arrays, "cpu")),
}
"""Every signal in models/. One that is missing here fails `test_every_signal_is_under_contract`."""
