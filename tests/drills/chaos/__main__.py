"""`make chaos`: three brokers, two to four scorers, and everything dies; then the checker. Before it, recovery times.

CHAOS_SEED, CHAOS_KILLS, CHAOS_EVENTS and CHAOS_PROTOCOL (classic, consumer, or both) set its size.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deploy.kafka.local import LocalKafka
from sample.records import TRAIN
from tests.drills.chaos.drill import Outcome, drill
from tests.drills.chaos.report import write_report
from tests.drills.chaos.storm import Done, planned
from tests.drills.recovery import late, measure
from tidegate.demo.process import environment, run

_SIZE = {"seed": "1", "kills": "30", "events": "200000"}
_TENANTS = 10_000
"""Whose state the third of the recoveries restores."""
_CONSUMER_SHARE = 4
"""Under `consumer` the drill is so many times smaller: a killed static member waits out its session every time."""


class View:
    """The drill on screen: a bar and a line an act; without a terminal the lines alone."""

    def __init__(self, acts: int) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn("acts"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=self._console, disable=not self._console.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task("", total=acts)
        self._progress.start()

    def act(self, done: Done, sent: int, waiting: Sequence[int]) -> None:
        """One more."""
        self.say(f"{done.at_s:6.0f} s  {done.act:<24}{done.what:<44}{done.seconds:5.1f} s  waiting {waiting}")
        self._progress.update(self._task, advance=1, description=f"{sent:,} records sent")
        if self._progress.finished:
            self.say("the storm is over; both services finish, then a replay and the checker")

    def say(self, line: str) -> None:
        """A line above the bar."""
        self._console.print(line, markup=False)

    def close(self) -> None:
        """The bar stays as it is."""
        self._progress.stop()


def main() -> int:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/chaos"))
    parser.add_argument("--release", type=Path, help="a release directory; trained from the sample when missing")
    given = parser.parse_args()
    seed, kills, events = (int(os.environ.get(f"CHAOS_{name.upper()}", default)) for name, default in _SIZE.items())
    wanted = os.environ.get("CHAOS_PROTOCOL", "both")
    if wanted not in ("classic", "consumer", "both"):
        parser.error(f"CHAOS_PROTOCOL must be classic, consumer or both; got {wanted!r}.")
    shutil.rmtree(given.out, ignore_errors=True)
    given.out.mkdir(parents=True)
    release = given.release or given.out / "release"
    if given.release is None:
        print("training a release from the sample")
        train = ["train", "--input", str(TRAIN), "--format", "corpus", "--seed", "7", "--out", str(release)]
        run(train, environment(), given.out / "train.log")
    begun = time.monotonic()
    print("a kill inside a transaction: seconds to the next commit")
    with LocalKafka() as kafka:
        recoveries = measure(kafka.bootstrap_servers, release, given.out / "recovery", _TENANTS, times=3)
    print(json.dumps(recoveries, indent=2, sort_keys=True))
    outcomes: dict[str, Outcome] = {}
    for protocol in ("classic", "consumer") if wanted == "both" else (wanted,):
        share = _CONSUMER_SHARE if protocol == "consumer" and wanted == "both" else 1
        acts = planned(max(1, kills // share), max(1, kills // share * 4 // 5), seed)
        view = View(len(acts))
        view.say(
            f"{protocol}: {events // share:,} events, {len(acts)} acts, seed {seed}; logs in {given.out / protocol}"
        )
        try:
            outcomes[protocol] = drill(release, given.out / protocol, protocol, acts, events // share, seed, view.act)
        finally:
            view.close()
    summary = {
        **recoveries,
        "seed": seed,
        "seconds": round(time.monotonic() - begun, 1),
        **{
            f"{protocol}_{name}": value for protocol, each in outcomes.items() for name, value in each.figures().items()
        },
        "faults": [
            *late(recoveries),
            *(f"{protocol}: {fault}" for protocol, each in outcomes.items() for fault in each.faults),
        ],
    }
    (given.out / "summary.json").write_text(json.dumps(summary, indent=2, sort_keys=True) + "\n")
    page = write_report(given.out, {name: (each.storm.done, each.lag) for name, each in outcomes.items()}, summary)
    print(json.dumps(summary, indent=2, sort_keys=True))
    print(f"{'FAULTS' if summary['faults'] else 'sound'}: {page}")
    return 4 if summary["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
