"""From a retrain request on a real topic to a signed release, announced and promoted, by the command itself."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from stream.runtime.release_store import load_release, read_manifest
from stream.runtime.trainer.job import Job
from stream.runtime.trainer.plan import Plan
from tests.kafka.harness import PATIENCE_S, get
from tests.kafka.training import CONTROLS, RELEASES, RETRAIN, Ground, Home, with_settings
from tidegate.demo.process import Service

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(1800)]
MODULE = "tests.kafka.quick_trainer"
PASSWORD = "a-password-that-nobody-may-see"


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def ground(home: Home, kafka: str, topic_prefix: str, tmp_path: Path) -> Ground:
    """A champion has scored sessions, some of them attacks, and an analyst has judged what it found."""
    return Ground(home, kafka, topic_prefix, tmp_path)


def to_the_end(ground: Ground, *more: str) -> str:
    """Run a trainer until what is asked is done; its log."""
    log = ground.directory / "trainer.log"
    # Of no use on a plain connection, and so nowhere to be found afterwards.
    environment = {**ground.environment(), "TIDEGATE_KAFKA__PROPERTIES__SASL_PASSWORD": PASSWORD}
    with Service(ground.command("--until-end", *more), environment, log, MODULE) as service:
        service.wait(1200)
    return log.read_text()


def holders_of(secret: str, ground: Ground) -> list[str]:
    """Files that the trainer wrote, its log and MLflow's store among them, and a secret got into."""
    files = [path for path in ground.directory.rglob("*") if path.is_file()]
    assert any(path.name == "mlflow.db" for path in files)
    return [path.name for path in files if secret.encode() in path.read_bytes()]


def kept(ground: Ground, request_id: str, name: str) -> dict[str, Any]:
    path = Path(ground.settings.trainer.directory) / request_id / name
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def test_a_request_becomes_one_release_that_is_announced_promoted_and_recorded(ground: Ground) -> None:
    ground.write(RETRAIN, b"population", b"nonsense")
    ground.write(RETRAIN, b"population", b'{"request_id":"\xff"}')
    request = ground.ask("more", ground.champion.name)
    ground.ask("more", ground.champion.name)
    log = to_the_end(ground)

    done = kept(ground, request.request_id, "done.json")
    made = [manifest for _, manifest in ground.registry.manifests() if manifest.data.request_id == request.request_id]
    assert [manifest.name for manifest in made] == [done["release"]], log
    (manifest,) = made
    path = ground.registry.path_of(manifest.name)
    load_release(path, ground.settings)
    assert manifest.parent == ground.champion.name
    assert manifest.signature is not None
    assert {r.topic for r in manifest.data.ranges} == {ground.settings.topics.events, ground.settings.topics.scores}
    assert manifest.data.labels is not None
    assert manifest.data.labels.ranges
    card = (path / "card.md").read_text()
    assert f"It follows `{ground.champion.name}`." in card
    assert "somebody asked for more" in card
    assert done["decision"] in card
    # What was left out as suspect, if anything was, is told, and among the sessions that it did not learn.
    assert 0 <= manifest.metrics["suspect_sessions"] <= manifest.data.left_out
    assert "left out as likest to labelled attacks" in card

    (announced,) = ground.cluster.values(RELEASES)
    assert (announced["release"], announced["promoted"]) == (manifest.name, done["passed"])
    assert announced["decision"] == done["decision"]
    controls = ground.cluster.values(CONTROLS)
    assert done["passed"], done["decision"]
    assert [control["value"]["release"] for control in controls] == [manifest.name]
    assert controls[0]["issuer"] == "tidegate trainer"
    # All four records are dealt with: two are nonsense, one repeats what was asked.
    assert ground.committed() == 4

    run = kept(ground, request.request_id, "mlflow.json")
    with sqlite3.connect(Path(ground.settings.trainer.directory) / "mlflow.db") as store:
        aliases = dict(store.execute("select alias, version from registered_model_aliases"))
        assert {name: str(version) for name, version in aliases.items()} == {"champion": run["version"]}
        tags = dict(store.execute("select key, value from tags where run_uuid = ?", [run["run_id"]]))
        assert tags["tidegate.request_id"] == request.request_id
        parameters = dict(store.execute("select key, value from params where run_uuid = ?", [run["run_id"]]))
    assert parameters["events_sha256"] == manifest.data.events_sha256
    assert parameters["labels_sha256"] == manifest.data.labels.labels_sha256
    # What only the job needed is let go of.
    assert not (Path(ground.settings.trainer.directory) / request.request_id / "kept").exists()

    again = to_the_end(ground)
    assert "Traceback" not in log + again
    key = Path(ground.settings.release.signing_key_file).read_text().splitlines()[1]
    assert holders_of(PASSWORD, ground) == []
    assert [name for name in holders_of(key, ground) if not name.endswith(".pem")] == []
    assert len(ground.cluster.values(RELEASES)) == len(ground.cluster.values(CONTROLS)) == 1


def test_a_job_answers_while_it_works_and_leaves_what_it_has_when_told_to_stop(ground: Ground) -> None:
    request = ground.ask("more", ground.champion.name)
    folder = Path(ground.settings.trainer.directory) / request.request_id
    with Service(ground.command(), ground.environment(), ground.directory / "one.log", MODULE) as service:
        said = service.ready(PATIENCE_S)
        assert said["partitions"] == [0]
        _await(lambda: (folder / "kept").is_dir())
        workers = _children(said["pid"])
        assert workers
        # It is not to be done before it is looked at.
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        assert get(f"{said['http']}/readyz") == (200, "ready\n")
        assert "tidegate_trainer_job_running 1.0" in get(f"{said['http']}/metrics")[1]
        os.kill(said["pid"], signal.SIGTERM)
        # Ten seconds, by the deadline, and what a machine that stands still adds.
        service.wait(60)
    _await(lambda: not any(_alive(pid) for pid in workers))
    assert ground.committed() < 1
    plan = (folder / "plan.json").read_bytes()
    to_the_end(ground)
    assert (folder / "plan.json").read_bytes() == plan
    assert ground.committed() == 1


def test_a_worker_dies_with_its_service(ground: Ground) -> None:
    request = ground.ask("more", ground.champion.name)
    with Service(ground.command(), ground.environment(), ground.directory / "one.log", MODULE) as service:
        said = service.ready(PATIENCE_S)
        _await(lambda: (Path(ground.settings.trainer.directory) / request.request_id / "plan.json").exists())
        workers = _children(said["pid"])
        assert workers
        service.kill()
        _await(lambda: not any(_alive(pid) for pid in workers))


def test_a_tenants_request_fits_adapters_on_the_backbone_in_service(ground: Ground) -> None:
    request = ground.ask("adapters", ground.champion.name, subject="team-1")
    log = to_the_end(ground)
    done = kept(ground, request.request_id, "done.json")
    ours = load_release(ground.registry.path_of(done["release"]), ground.settings).bank.arrays
    theirs = load_release(ground.registry.path_of(ground.champion.name), ground.settings).bank.arrays
    for name in ("encoder.weight", "decoder.weight"):
        assert (ours[name] == theirs[name]).all(), log


def test_what_cannot_be_done_fails_for_good_and_lets_the_next_one_begin(ground: Ground) -> None:
    lost = ground.ask("lost", "r-000000000000")
    request = ground.ask("more", ground.champion.name)
    log = to_the_end(ground)
    assert "r-000000000000" in kept(ground, lost.request_id, "failed.json")["reason"]
    assert kept(ground, request.request_id, "done.json")["passed"], log
    assert ground.committed() == 2


def test_without_anything_in_service_a_release_is_announced_and_not_promoted(ground: Ground) -> None:
    request = ground.ask("first", None)
    to_the_end(ground)
    done = kept(ground, request.request_id, "done.json")
    assert (done["passed"], done["promoted"]) == (False, False)
    assert "Nothing is in service to compare it with" in done["decision"]
    assert [record["promoted"] for record in ground.cluster.values(RELEASES)] == [False]
    assert ground.cluster.values(CONTROLS) == []


def test_a_store_that_cannot_be_reached_costs_nothing_and_is_told_at_the_next_start(ground: Ground) -> None:
    with_settings(ground, mlflow={"tracking_uri": "http://127.0.0.1:9"})
    request = ground.ask("more", ground.champion.name)
    log = to_the_end(ground)
    folder = Path(ground.settings.trainer.directory) / request.request_id
    assert (folder / "done.json").exists()
    assert not (folder / "mlflow.json").exists()
    assert "is not recorded in MLflow" in log
    with_settings(ground, mlflow={"tracking_uri": ""})
    to_the_end(ground)
    assert (folder / "mlflow.json").exists()


def test_a_job_that_goes_on_elsewhere_ends_with_the_same_release(ground: Ground) -> None:
    request = ground.ask("more", ground.champion.name)
    with_settings(ground, trainer={"promote": False})
    first = Job(request, ground.settings)
    first.run()
    plan = first.folder.read("plan.json", Plan)
    name = read_manifest(first.released[0], ground.settings).name
    with_settings(ground, trainer={"directory": str(ground.directory / "elsewhere"), "nproc": 2})
    second = Job(request, ground.settings)
    second.folder.write("plan.json", plan)
    assert second.run().release == name
    assert len(ground.cluster.values(RELEASES)) == 1


def _await(done: Any, seconds: float = PATIENCE_S) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until
        time.sleep(0.02)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
