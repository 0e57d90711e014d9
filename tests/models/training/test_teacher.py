"""The teacher learns the same in any number of processes, and goes on where it was killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.embedder import WeightsError
from models.minilm import checked_weights
from models.training.splices import take
from models.training.teacher import Answers, TeacherError, Tuning, tune
from models.training.teacher_process import COMPLETE, checkpoints
from tests.models.attacks import labelled
from tests.models.texts import TOKENS

# A process takes several seconds to import what it needs, and others use the machine.
pytestmark = pytest.mark.timeout(1200)

HOW = Tuning(epochs=2.0, examples_max=96, batch=16, layers=1, checkpoint_steps=3, device="cpu")
STEPS = 12
ASKED = 40
_KILLED = """
import os, signal, sys
from pathlib import Path
from tests.models.training.test_teacher import HOW, _processes_of, taught

def told(step, of, loss):
    if step >= 8:
        # It is not to be done before it is looked at.
        for pid in _processes_of(Path(sys.argv[1])):
            os.kill(pid, signal.SIGSTOP)
    print(step, flush=True)

taught(Path(sys.argv[1]), HOW, told)
"""


def taught(directory: Path, how: Tuning, progress: object = None) -> Answers:
    bags, labels, _, _ = labelled(each=60)
    asked = take(bags, np.arange(len(labels) - ASKED, len(labels)))
    told = progress if callable(progress) else (lambda step, of, loss: None)
    share = np.ones(len(labels))
    return tune(bags, labels, share, asked, TOKENS, directory=directory, seed=3, how=how, progress=told)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answers]:
    directory = tmp_path_factory.mktemp("alone")
    return directory, taught(directory, HOW)


def test_it_learns(alone: tuple[Path, Answers]) -> None:
    answers = alone[1]
    assert len(answers.losses) == STEPS
    assert answers.losses[-1] < 0.7 * answers.losses[0] < 0.7
    assert answers.examples == 96
    # What it is asked about are jailbreaks, half of which it has not been shown.
    assert answers.logits.shape == (ASKED, 5)
    assert (answers.logits.argmax(axis=1) == 1).all()


def test_losses_of_two_processes_are_those_of_one(alone: tuple[Path, Answers], tmp_path: Path) -> None:
    """Each reads half of every batch; what differs is the order in which numbers of 24 bits are summed."""
    both = taught(tmp_path, replace(HOW, nproc=2))
    assert both.losses == pytest.approx(alone[1].losses, abs=1e-5)
    assert both.logits == pytest.approx(alone[1].logits, abs=1e-3)


def test_one_that_was_killed_goes_on_and_ends_the_same(alone: tuple[Path, Answers], tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", _KILLED, str(tmp_path)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent, parent.stdout as said:
        for line in said:
            if int(line) >= 8:
                break
        stopped = _processes_of(tmp_path)
        assert stopped
        parent.kill()
    for pid in stopped:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    for _ in range(1_200):
        # Nobody has told the process: it has seen that its parent is gone.
        if not _processes_of(tmp_path):
            break
        time.sleep(0.1)
    assert not _processes_of(tmp_path)
    (folder,) = tmp_path.iterdir()
    whole = sorted(path.parent.name for path in checkpoints(folder).glob(f"*/{COMPLETE}"))
    assert whole
    # A later one that was not written to its end is left alone.
    (checkpoints(folder) / "checkpoint-11").mkdir(exist_ok=True)
    (checkpoints(folder) / "checkpoint-11" / "trainer_state.json").write_text("{")
    steps: list[int] = []
    answers = taught(tmp_path, HOW, lambda step, of, loss: steps.append(step))
    assert steps == list(range(int(whole[-1].partition("-")[2]) + 1, STEPS + 1))
    assert answers.losses == alone[1].losses
    assert answers.logits.tobytes() == alone[1].logits.tobytes()
    assert answers.sha256 == alone[1].sha256


def test_what_is_finished_is_read_back(alone: tuple[Path, Answers]) -> None:
    directory, before = alone
    steps: list[int] = []
    after = taught(directory, HOW, lambda step, of, loss: steps.append(step))
    assert not steps
    assert after.logits.tobytes() == before.logits.tobytes()
    assert (after.losses, after.sha256) == (before.losses, before.sha256)
    (folder,) = directory.iterdir()
    assert not checkpoints(folder).exists()


def test_a_process_that_fails_says_so(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(TeacherError, match=r"process 0 of the teacher failed with exit code 1; .*process-0.log ends"):
        taught(tmp_path, replace(HOW, device="cuda"))


def test_labels_of_one_kind_are_refused(tmp_path: Path) -> None:
    bags, labels, _, _ = labelled(each=20)
    for chosen, count in ((labels.any(axis=1), 40), (~labels.any(axis=1), 0)):
        rows = np.flatnonzero(chosen)
        few = take(bags, rows)
        text = f"a teacher needs attacks and benign segments; got {count} of {len(rows)} attacks."
        with pytest.raises(ValueError, match=re.escape(text)):
            tune(few, labels[rows], np.ones(len(rows)), few, TOKENS, directory=tmp_path, seed=1)


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("nproc must be a divisor of the batch, 32; got 3.")):
        Tuning(nproc=3)


def test_weights_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"model.safetensors: cannot be read"):
        checked_weights(tmp_path)


def _processes_of(folder: Path) -> list[int]:
    """Processes that have the folder among their arguments, the teacher's own."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"models.training.teacher_process" in arguments and any(str(folder).encode() in part for part in arguments):
            found.append(int(path.parent.name))
    return found
