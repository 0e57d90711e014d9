"""`make soak`: days of mixed traffic in minutes, with a release switch and rebalances, and what they cost over time.

    python -m tests.drills.soak --minutes 20

Eight days of traffic, compressed: events' time runs so much faster than the clock, and sessions, findings and tenants
come and go with it. SOAK_MINUTES sets the length. Leaves `summary.json`, `samples.jsonl`, `soak.png` and `report.html`
in --out. Exit code 4 when a service takes over 5 % more memory on the last day than on the first one after warm-up, or
when a record was lost or doubled.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from deploy.kafka.local import LocalKafka
from sample.records import LIVE, TRAIN
from tests.drills.soak.judge import judge
from tests.drills.soak.plan import DAYS, Plan
from tests.drills.soak.report import PAGE, write_report
from tests.drills.soak.sessions import patterns
from tests.drills.soak.soak import Broker, Soak
from tidegate.demo.__main__ import interrupt
from tidegate.demo.process import CommandError
from tidegate.demo.release import sample_release

_LINE_S = 15.0
"""Between two lines where there is no terminal."""


def main() -> int:
    """Run it; 0 when nothing grew and nothing was lost, 4 when something did, 1 when it could not be run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=float(os.environ.get("SOAK_MINUTES") or 20.0))
    parser.add_argument("--rate", type=float, default=200.0, help="events a second, mean of a day (default: 200)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--release", type=Path, help="a release directory (default: train one)")
    parser.add_argument("--out", type=Path, default=Path("out/soak"))
    given = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        # In a shell's background SIGINT is ignored, and services would outlive whoever started them.
        signal.signal(number, interrupt)
    console = Console(highlight=False, soft_wrap=True)
    given.out.mkdir(parents=True, exist_ok=True)
    try:
        return _soak(console, given.release or sample_release(console, given.out), given)
    except KeyboardInterrupt:
        console.print("\nStopped; Kafka and the services are down.")
        return 130


def _soak(console: Console, release: Path, given: argparse.Namespace) -> int:
    known = patterns([TRAIN, LIVE])
    with LocalKafka() as kafka:
        broker = Broker(kafka.bootstrap_servers, kafka.pid, kafka.log.parent / "log")
        with _shown(console) as (progress, say):
            soak = Soak(broker, release, given.out, Plan(given.minutes), known, given.rate, given.seed, say)
            try:
                soak.run(progress)
            except (CommandError, TimeoutError) as error:
                soak.faults.append(str(error))
        keep_samples(soak)
        console.print("Checking that nothing is lost …")
        figures, faults = judge(soak)
    finish(soak, figures, faults)
    for name, value in sorted(figures.items()):
        console.print(f"  {name:32} {value:12,.2f}")
    console.print("Nothing lost, nothing grown." if not faults else "\n".join(["[red]Wrong:[/red]", *faults]))
    console.print(f"Picture and figures: {given.out / PAGE}")
    return 4 if faults else 0


def keep_samples(soak: Soak) -> None:
    """Write what was seen, a line a sample."""
    with (soak.out / "samples.jsonl").open("w") as file:
        file.writelines(json.dumps(asdict(sample), sort_keys=True) + "\n" for sample in soak.samples)


def finish(soak: Soak, figures: dict[str, float], faults: list[str]) -> None:
    """Write figures, picture and page."""
    out = soak.out
    # JSON knows no NaN.
    told = {name: None if math.isnan(value) else round(value, 4) for name, value in figures.items()}
    (out / "summary.json").write_text(json.dumps({**told, "faults": faults}, indent=2, sort_keys=True) + "\n")
    write_report(soak, figures, faults, out)


@contextmanager
def _shown(console: Console) -> Iterator[tuple[Callable[[Soak], None], Callable[[str], None]]]:
    """What shows progress, and what says that something is done: bars on a terminal, else a line now and then."""
    if not console.is_terminal:
        last = [0.0]

        def line(soak: Soak) -> None:
            if time.monotonic() - last[0] >= _LINE_S:
                last[0] = time.monotonic()
                console.print(_state(soak))

        yield line, lambda what: console.print(f"now: {what}")
        return
    progress = Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console)
    with progress:
        task = progress.add_task("starting", total=1.0)

        def bar(soak: Soak) -> None:
            progress.update(task, completed=min(1.0, soak.after_s / soak.plan.seconds), description=_state(soak))

        yield bar, lambda what: progress.console.print(f"now: {what}")


def _state(soak: Soak) -> str:
    day = min(DAYS, soak.plan.day_of(soak.after_s) + 1)
    last = soak.samples[-1] if soak.samples else None
    processes = last.processes if last else {}
    memory = ", ".join(f"{name} {one.rss_bytes / 1e6:.0f} MB" for name, one in processes.items() if name != "broker")
    behind = soak.sent - soak.poison - soak.scored
    return f"day {day} of {DAYS}, {soak.sent} sent, {behind} not scored yet; {memory}"


if __name__ == "__main__":
    sys.exit(main())
