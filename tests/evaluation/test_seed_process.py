"""Seeds of an evaluation in processes of their own: the same rows, one error that ends all, and no orphans."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from threadpoolctl import threadpool_limits

from evaluation.command import run
from evaluation.report.write import read_excerpts
from evaluation.seed_process import Order, judge
from stream.errors import StateError
from tests.evaluation.folder import write_corpus
from tests.evaluation.office import sessions
from tests.evaluation.systems.small import SETTINGS, embedder
from tests.evaluation.test_command import given
from tests.stream.releases import write
from tidegate.commands import parse

ROOT = Path(__file__).parents[2]
SCRIPT = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from evaluation.seed_process import _end_with_parent

def judge():
    print(os.getpid(), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    with ProcessPoolExecutor(1, get_context("spawn"), _end_with_parent) as pool:
        pool.submit(judge).result()
"""


def _processors(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)))


@pytest.mark.timeout(1800)
def test_seeds_side_by_side_say_what_they_say_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "release", embedder().space_id)
    folder = write_corpus(tmp_path / "corpus", sessions())
    line = ["evaluate", "--corpus", str(folder), "--release", str(tmp_path / "release"), "--seeds", "2"]
    rows, excerpts = [], []
    for processors in (1, 2):
        _processors(monkeypatch, processors)
        out = tmp_path / str(processors)
        # As a library may have left this process; processes of their own have as many threads as they are told.
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        with threadpool_limits(1):
            assert run(SETTINGS, parse([*line, "--out", str(out), "--only", "session"])) == 0
        rows.append(Counter((out / "sessions.jsonl").read_bytes().splitlines()))
        excerpts.append(read_excerpts(out))
        said = capfd.readouterr().err
        assert "session, seed 0: tidegate" in said and "session, seed 1: tidegate" in said
    assert rows[0] == rows[1] and len(rows[0]) > 0
    assert excerpts[0] == excerpts[1]


def test_what_ends_one_seed_ends_the_command_with_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "release", embedder().space_id)
    folder, out = write_corpus(tmp_path / "corpus", sessions()), tmp_path / "out"
    _processors(monkeypatch, 2)
    arguments = given(folder, out, release=str(tmp_path / "release"), seeds=2, only="session")
    assert run(SETTINGS, arguments) == 0
    # Parts of the two seeds are gone, and what they are judged with is damaged once this process has read it.
    for part in (out / "parts").glob("session.*"):
        for file in part.iterdir():
            file.unlink()
        part.rmdir()
    manifest = tmp_path / "release" / "manifest.json"

    def damaged(order: Order, seeds: Sequence[int], *, released: bool) -> None:
        manifest.write_bytes(b"{")
        judge(order, seeds, released=released)

    monkeypatch.setattr("evaluation.command.judge", damaged)
    with pytest.raises(StateError, match=r"manifest\.json"):
        run(SETTINGS, arguments)


@pytest.mark.timeout(600)
def test_a_seed_ends_when_the_command_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "judged.py"
    script.write_text(SCRIPT)
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environ) as command:
        assert command.stdout is not None
        worker = int(command.stdout.readline())
        command.kill()
    until = time.monotonic() + 180
    while _runs(worker) and time.monotonic() < until:
        time.sleep(0.1)
    assert not _runs(worker)


def _runs(pid: int) -> bool:
    """A process that has ended and waits to be taken note of does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
