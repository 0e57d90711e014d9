"""`make fuzz`: every decoder against inputs that its author did not think of.

Each decoder runs in a process of its own, one after another, so that one that hangs or swallows memory is seen and the
others still run. What failed lies in `out/fuzz/failures/`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.fuzz.engines import Tally, by_hypothesis
from tests.fuzz.targets import ROOT, SHARES, TARGETS

_HYPOTHESIS = 0.01
"""Share of inputs that Hypothesis draws; it is fifty times as slow."""
_LOOK_SECONDS = 0.5
_RESTARTS_MAX = 5


def main() -> int:
    """Run the fuzzer; 0 when every input became what it may become."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="over all decoders (default: 1,000,000)")
    parser.add_argument("--seed", type=int, default=7, help="of everything that is drawn (default: 7)")
    parser.add_argument("--only", help=f"decoders, by commas: {', '.join(TARGETS)}")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "fuzz", help="where summary and failures go")
    given = parser.parse_args()
    names = given.only.split(",") if given.only else list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        parser.error(f"--only must name some of {', '.join(TARGETS)}; got {', '.join(sorted(unknown))}")
    return _run(names, given.inputs, given.seed, given.out)


def _run(names: list[str], inputs: int, seed: int, out: Path) -> int:
    began = time.monotonic()
    console = Console(soft_wrap=True)
    out.mkdir(parents=True, exist_ok=True)
    total = sum(SHARES.get(name, 1.0) for name in names)
    tallies: dict[str, Tally] = {}
    columns = (TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        whole = progress.add_task("all", total=inputs)
        for name in names:
            # Rounded up, so that all of them together are not fewer than were asked for.
            share = -int(-inputs * SHARES.get(name, 1.0) // total)
            drawn = max(1, int(share * _HYPOTHESIS))
            task = progress.add_task(name, total=share)
            done = sum(tally.inputs for tally in tallies.values())
            tally = by_hypothesis(TARGETS[name](), drawn, seed, out / "failures")
            for so_far in _guided(name, share - tally.inputs, seed, out):
                progress.update(task, completed=so_far.inputs + tally.inputs)
                progress.update(whole, completed=so_far.inputs + tally.inputs + done)
            tally.add(so_far)
            tallies[name] = tally
            progress.update(task, completed=tally.inputs, visible=False)
            told = ", ".join(
                f"{n:,} {what}" for what, n in sorted(tally.outcomes.items(), key=lambda item: -item[1])[:5]
            )
            progress.console.print(f"{name:<14} {tally.inputs:>9,} inputs: {told}; slowest {tally.slowest_ms:.0f} ms")
    failures = {kind: where for tally in tallies.values() for kind, where in tally.failures.items()}
    summary = {
        "inputs": sum(tally.inputs for tally in tallies.values()),
        "decoders": len(tallies),
        "failures": len(failures),
        "slowest_ms": round(max(tally.slowest_ms for tally in tallies.values()), 1),
        "memory_mb": max(tally.memory_mb for tally in tallies.values()),
        "seed": seed,
        "seconds": round(time.monotonic() - began, 1),
        "of_decoder": {name: asdict(tally) for name, tally in tallies.items()},
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=2, sort_keys=True) + "\n")
    for kind, where in failures.items():
        console.print(f"[red]{kind}[/red]\n    {where}", markup=True)
    console.print(
        f"{summary['inputs']:,} inputs over {len(tallies)} decoders, {len(failures)} failures, "
        f"{summary['seconds']:.0f} s. Figures: {out / 'summary.json'}"
    )
    return 1 if failures else 0


def _guided(name: str, inputs: int, seed: int, out: Path) -> Iterator[Tally]:
    """A decoder's inputs by Atheris, how far it is and at last all of it; begun again where one input ended it."""
    whole = Tally()
    for attempt in range(_RESTARTS_MAX):
        left = inputs - whole.inputs
        if left <= 0:
            break
        saved = out / "tally.json"
        saved.unlink(missing_ok=True)
        before = set((out / "failures").glob("*"))
        flags = ["--inputs", str(left), "--seed", str(seed + attempt), "--out", str(out)]
        with (out / f"{name}.log").open("wb") as log:
            command = [sys.executable, "-m", "tests.fuzz.guided", name, *flags]
            child = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
            try:
                while child.poll() is None:
                    time.sleep(_LOOK_SECONDS)
                    so_far = _read(saved)
                    so_far.add(whole)
                    yield so_far
            finally:
                child.kill()
                child.wait()
        whole.add(_read(saved))
        if child.returncode:
            found = sorted(set((out / "failures").glob(f"{name}-*")) - before)
            where = str(found[0]) if found else str(out / f"{name}.log")
            whole.failures[f"{name}: the process ended with {child.returncode} (time, memory or a crash)"] = where
    yield whole


def _read(path: Path) -> Tally:
    return Tally(**json.loads(path.read_text())) if path.exists() else Tally()


if __name__ == "__main__":
    sys.exit(main())
