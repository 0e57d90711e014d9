"""Fine-tune a small language model on labelled segments, and ask it about others: the teacher of `AttackClassifier`.

The work is done by processes of their own (`models.training.teacher_process`), one or several on equal parts of each
batch: no library of it is loaded where traffic is scored, and one that is killed leaves no more than a folder.

Legend: s segments to learn from, m segments to be asked about, c classes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from models.minilm import WEIGHTS_SHA256, checked_weights, ids_of
from models.training.teacher_process import LESSON, LOSSES, TENSORS, answers, checkpoints
from models.wordpiece import TokenBags

_RESULT = "result.safetensors"
_BUCKETED = 8
"""Batches in a row that are sorted by length, so that little is padded."""
_TAIL_LINES = 8
_COMMAND = (sys.executable, "-m", "models.training.teacher_process")

Progress = Callable[[int, int, float], None]
"""Told step, of how many, and its loss."""


class TeacherError(Exception):
    """The teacher could not be fine-tuned."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """How to fine-tune."""

    epochs: float = 2.0
    examples_max: int = 4000
    """Segments that are learnt from, half of them attacks."""
    tokens_max: int = 56
    """Tokens read of a segment, with the two that frame it: one in ten is longer."""
    batch: int = 32
    """Segments of a step, of all processes together."""
    layers: int = 3
    """The first layers, of six, that are kept and learn: the others cost as much and were found to add nothing."""
    learning_rate: float = 1e-4
    head_learning_rate: float = 1e-2
    checkpoint_steps: int = 50
    nproc: int = 1
    """Processes. What comes of it is the same up to rounding; a divisor of `batch`."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: a GPU for each process if there are any. On GPUs and on a CPU with AMX in bfloat16."""
    weights: Path | None = None
    """Folder of MiniLM's files; None for those of the installed package."""

    def __post_init__(self) -> None:
        if self.nproc < 1 or self.batch % self.nproc:
            raise ValueError(f"nproc must be a divisor of the batch, {self.batch}; got {self.nproc}.")


@dataclass(frozen=True, slots=True)
class Answers:
    """What the teacher says, and how it came to that."""

    logits: NDArray[np.float32]
    """(m, c) log-odds."""
    losses: list[float]
    """Of each step."""
    examples: int
    sha256: str
    """Of the tensors that it has learned."""


def tune(
    bags: TokenBags,
    labels: NDArray[np.bool_],
    share: NDArray[np.float64],
    asked: TokenBags,
    vocabulary: Sequence[str],
    *,
    directory: Path,
    seed: int,
    how: Tuning = Tuning(),
    progress: Progress = lambda step, of, loss: None,
) -> Answers:
    """Fine-tune on segments (s), half of them attacks, and read the segments `asked` (m).

    What was begun with the same segments, seed and settings in `directory`, and killed, goes on from its last
    checkpoint, and what was finished is read back. On one machine the same input gives the same bytes with or without
    having been killed, for one number of processes; for another, losses that differ by rounding.

    Parameters
    ----------
    labels
        (s, c): none is benign.
    share
        (s,) how often a segment is drawn, beside others of its side, where there are more than `how.examples_max`.
    vocabulary
        Of the bags' ids.

    Raises
    ------
    ValueError
        Without attacks or without benign segments.
    WeightsError
        When MiniLM's files are missing or damaged.
    TeacherError
        When a process fails.
    """
    attack: NDArray[np.bool_] = np.logical_or.reduce(labels, axis=1)
    if attack.all() or not attack.any():
        raise ValueError(f"a teacher needs attacks and benign segments; got {attack.sum()} of {len(attack)} attacks.")
    weights = checked_weights(how.weights)
    known = ids_of(vocabulary, weights)
    rng = np.random.default_rng(seed)
    chosen = _drawn(attack, share, how.examples_max, rng)
    taken = bags.take(chosen)
    sizes = np.minimum(np.diff(taken.offsets), how.tokens_max - 2)
    ids, offsets = _framed(taken, how.tokens_max, known)
    read_ids, read_offsets = _framed(asked, how.tokens_max, known)
    arrays: dict[str, NDArray[Any]] = {
        "ids": ids,
        "offsets": offsets,
        "labels": labels[chosen].astype(np.float32),
        "order": _order(sizes, how, rng),
        "read_ids": read_ids,
        "read_offsets": read_offsets,
    }
    # How many processes there are, and where, may change when it goes on.
    settled = {name: value for name, value in asdict(how).items() if name not in ("nproc", "device", "weights")}
    settled |= {"seed": seed, "classes": labels.shape[1]}
    folder = directory / f"teacher-{_digest(arrays, settled)[:16]}"
    if not (folder / _RESULT).exists():
        _write_lesson(folder, arrays, settled | {"weights": str(weights)})
        _run(folder, how, progress)
        _finish(folder, how.nproc, len(asked.offsets) - 1, labels.shape[1])
    return _answers(folder, len(chosen))


# -- the lesson --------------------------------------------------------------------------------------------------------


def _drawn(
    attack: NDArray[np.bool_], share: NDArray[np.float64], most: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Rows that are learnt from, as many attacks as benign segments if there are enough of both."""
    sides = [np.flatnonzero(attack), np.flatnonzero(~attack)]
    half = min(most // 2, *map(len, sides))
    drawn = [rng.choice(side, half, replace=False, p=share[side] / share[side].sum()) for side in sides]
    return np.sort(np.concatenate(drawn))


def _order(sizes: NDArray[np.int64], how: Tuning, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows step after step: each epoch once through, segments of about one length together."""
    count = len(sizes)
    steps = max(int(how.epochs * count) // how.batch, 1)
    rows = np.concatenate([rng.permutation(count) for _ in range(-(-steps * how.batch // count))])[: steps * how.batch]
    wide = _BUCKETED * how.batch
    batches: list[NDArray[np.int64]] = []
    for low in range(0, len(rows), wide):
        part = rows[low : low + wide]
        sorted_ = part[np.argsort(sizes[part], kind="stable")].reshape(-1, how.batch)
        batches += list(sorted_[rng.permutation(len(sorted_))])
    # Each process takes every `nproc`-th of a batch's parts: short and long ones are dealt to all.
    return np.concatenate([rng.permutation(batch) for batch in batches]).astype(np.int64)


def _framed(
    bags: TokenBags, tokens_max: int, known: tuple[NDArray[np.int64], int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The model's ids of the bags, framed by those that begin and end a text, and where each begins."""
    id_of, begin, end = known
    sizes = np.minimum(np.diff(bags.offsets), tokens_max - 2)
    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes + 2, out=offsets[1:])
    at = np.arange(offsets[-1]) - np.repeat(offsets[:-1], sizes + 2)
    last = np.repeat(sizes + 1, sizes + 2)
    inside = (at > 0) & (at < last)
    ids = np.where(at == 0, begin, end)
    ids[inside] = id_of[bags.ids[(np.repeat(bags.offsets[:-1], sizes + 2) + at - 1)[inside]]]
    return ids, offsets


def _digest(arrays: dict[str, NDArray[Any]], settled: dict[str, Any]) -> str:
    digest = sha256(json.dumps(settled | {"minilm": WEIGHTS_SHA256}, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _write_lesson(folder: Path, arrays: dict[str, NDArray[Any]], how: dict[str, Any]) -> None:
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    new = folder / (LESSON + ".new")
    save_file(arrays, new, metadata={"how": json.dumps(how)})
    new.replace(folder / LESSON)


# -- the processes -----------------------------------------------------------------------------------------------------


def _run(folder: Path, how: Tuning, progress: Progress) -> None:
    """Run the processes to their end; when one fails the others are ended."""
    (folder / "meeting").unlink(missing_ok=True)
    said: SimpleQueue[tuple[int, int] | bytes] = SimpleQueue()
    started: list[subprocess.Popen[bytes]] = []
    logs = [folder / f"process-{rank}.log" for rank in range(how.nproc)]
    try:
        for rank, log in enumerate(logs):
            with log.open("wb") as errors:
                started.append(
                    subprocess.Popen(
                        [*_COMMAND, str(folder), str(rank), str(how.nproc), how.device],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
                        stderr=errors,
                    )
                )
            Thread(target=_watch, args=(rank, started[rank], said), daemon=True).start()
        running = how.nproc
        while running:
            news = said.get()
            if isinstance(news, bytes):
                _tell(news, progress)
            elif news[1] != 0:
                raise TeacherError(_failed(news[0], news[1], logs[news[0]]))
            else:
                running -= 1
    finally:
        for process in started:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def _watch(rank: int, process: subprocess.Popen[bytes], said: SimpleQueue[tuple[int, int] | bytes]) -> None:
    """Pass on what a process says, and at last its exit code."""
    out: IO[bytes] | None = process.stdout
    if out is not None:
        for line in out:
            said.put(line)
    said.put((rank, process.wait()))


def _tell(line: bytes, progress: Progress) -> None:
    """What a library prints is no news."""
    try:
        news = json.loads(line)
        progress(int(news["step"]), int(news["of"]), float(news["loss"]))
    except (ValueError, TypeError, KeyError):
        return


def _failed(rank: int, code: int, log: Path) -> str:
    tail = log.read_text("utf-8", "replace").strip().splitlines()[-_TAIL_LINES:]
    how = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
    return f"process {rank} of the teacher {how}; {log} ends with: " + "\n".join(tail)


def _finish(folder: Path, world: int, asked: int, classes: int) -> None:
    """One file of all processes' answers; checkpoints are not needed any more."""
    from safetensors.numpy import load_file, save_file

    logits = np.full((asked, classes), np.nan, np.float32)
    for rank in range(world):
        read = load_file(folder / answers(rank))
        logits[read["rows"]] = read["logits"]
    if np.isnan(logits).any():
        raise TeacherError(f"{folder}: the teacher's log-odds must be numbers; some are not. Lower its learning rate.")
    new = folder / (_RESULT + ".new")
    save_file({"logits": logits}, new)
    new.replace(folder / _RESULT)
    shutil.rmtree(checkpoints(folder), ignore_errors=True)


def _answers(folder: Path, examples: int) -> Answers:
    from safetensors.numpy import load_file

    return Answers(
        load_file(folder / _RESULT)["logits"],
        json.loads((folder / LOSSES).read_text()),
        examples,
        sha256((folder / TENSORS).read_bytes()).hexdigest(),
    )
