"""Kill the trainer at random moments while it works on requests, then ask what is in the registry and on the topics.

`python -m tests.drills.trainer_drill` is the long form; `tests/kafka/test_trainer_kills.py` runs a short one.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from deploy.kafka.local import LocalKafka
from schemas.retrain import RetrainRequest
from stream.errors import StateError
from stream.runtime.release_store import load_release
from tests.kafka.training import CONTROLS, RELEASES, Ground, Home
from tidegate.demo.process import Service

MODULE = "tests.kafka.quick_trainer"
_READY_S, _END_S = 300.0, 1200.0


@dataclass(slots=True)
class Looker:
    """Looks at the registry all the time: what it lists is whole, or somebody would serve half a release."""

    ground: Ground
    looked: int = 0
    broken: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        known: set[Path] = set()
        while not self._stop.wait(0.05):
            for path, _ in self.ground.registry.entries():
                if path not in known:
                    known.add(path)
                    self.looked += 1
                    try:
                        load_release(path, self.ground.settings)
                    except StateError as error:
                        self.broken.append(str(error))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the drill found; empty `faults` are what is wanted."""

    kills: int
    looked: int
    faults: list[str]


def drill(
    ground: Ground, requests: Sequence[RetrainRequest], kills: int, seed: int, longest_s: float = 25.0
) -> Outcome:
    """Kill the trainer `kills` times while it works on `requests`, let it finish, and check."""
    moments = random.Random(seed)
    done = 0
    with Looker(ground) as looker:
        for number in range(kills):
            print(f"kill {number + 1} of {kills}", end="\r", file=sys.stderr, flush=True)
            with Service(ground.command(), ground.environment(), ground.directory / "trainer.log", MODULE) as service:
                service.ready(_READY_S)
                # Jobs take seconds: moments lie anywhere in them, and now and then in the next start's first ones.
                time.sleep(moments.uniform(0.0, longest_s if number % 4 else 2.0))
                service.kill()
            done += 1
        with Service(
            ground.command("--until-end"), ground.environment(), ground.directory / "trainer.log", MODULE
        ) as service:
            service.wait(_END_S)
    return Outcome(done, looker.looked, [*looker.broken, *faults(ground, requests)])


def faults(ground: Ground, requests: Sequence[RetrainRequest]) -> list[str]:
    """What is missing, twice or half there."""
    found = []
    wanted = {request.request_id for request in requests}
    made = Counter(manifest.data.request_id for _, manifest in ground.registry.manifests())
    found += [f"request {name} has {made[name]} releases in the registry" for name in wanted if made[name] != 1]
    for path, entry in ground.registry.entries():
        try:
            load_release(path, ground.settings)
        except StateError as error:
            found.append(f"{path} is listed and may not be served: {error}, {entry}")
    names = {m.name: m.data.request_id for _, m in ground.registry.manifests() if m.data.request_id in wanted}
    announced = Counter(record["release"] for record in ground.cluster.values(RELEASES))
    controls = Counter(record["value"]["release"] for record in ground.cluster.values(CONTROLS))
    found += [f"{name} was announced {announced[name]} times" for name in names if announced[name] != 1]
    found += [f"{name} was promoted {controls[name]} times" for name in names if controls[name] > 1]
    found += [f"{name} was announced, and is in no registry" for name in announced if name not in names]
    if sum(controls.values()) == 0:
        found.append("nothing was promoted")
    left = [p for p in Path(ground.settings.release.directory).iterdir() if p.name.startswith(".")]
    found += [f"{path} is left over" for path in left]
    return found


def main() -> int:
    """Run the long form; 0 when nothing is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--requests", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bootstrap-servers", help="of a running broker; without, one is started")
    parser.add_argument("--out", type=Path, default=Path("out/chaos-trainer"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if given.bootstrap_servers:
            return _run(given, given.bootstrap_servers, Path(scratch))
        with LocalKafka() as kafka:
            return _run(given, kafka.bootstrap_servers, Path(scratch))


def _run(given: argparse.Namespace, servers: str, scratch: Path) -> int:
    (scratch / "home").mkdir()
    (scratch / "ground").mkdir()
    ground = Ground(Home(scratch / "home"), servers, f"drill-{uuid.uuid4().hex[:8]}.", scratch / "ground")
    requests = [ground.ask(f"request {number}", ground.champion.name) for number in range(given.requests)]
    began = time.monotonic()
    outcome = drill(ground, requests, given.kills, given.seed)
    summary = {
        "seed": given.seed,
        "kills": outcome.kills,
        "requests": len(requests),
        "releases_looked_at": outcome.looked,
        "seconds": round(time.monotonic() - began, 1),
        "faults": outcome.faults,
    }
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "summary.json").write_text(json.dumps(summary, indent=2, sort_keys=True) + "\n")
    print(json.dumps(summary, indent=2, sort_keys=True))
    return 4 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
