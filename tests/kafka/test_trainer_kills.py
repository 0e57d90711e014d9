"""A trainer that is killed again and again makes one release of each request, and says so once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.drills.trainer_drill import drill, faults
from tests.kafka.training import CONTROLS, RELEASES, Ground, Home

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(1800)]


def test_killed_at_random_moments_it_makes_each_release_once(
    kafka: str, topic_prefix: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ground = Ground(Home(tmp_path_factory.mktemp("home")), kafka, topic_prefix, tmp_path)
    requests = [ground.ask("killed", ground.champion.name)]
    outcome = drill(ground, requests, kills=4, seed=3, longest_s=20.0)
    assert outcome.faults == []
    assert outcome.looked >= 2

    # And the checker sees what it is there for.
    (name,) = {record["release"] for record in ground.cluster.values(RELEASES)}
    control = ground.cluster.read(CONTROLS)[0].value() or b""
    ground.write(CONTROLS, None, control)
    assert faults(ground, requests) == [f"{name} was promoted 2 times"]
    path = ground.registry.path_of(name)
    (path / "bank.safetensors").write_bytes(b"half")
    assert any("is listed and may not be served" in fault for fault in faults(ground, requests))
    shutil.rmtree(path)
    assert any("has 0 releases in the registry" in fault for fault in faults(ground, requests))
