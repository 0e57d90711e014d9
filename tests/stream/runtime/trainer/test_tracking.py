"""MLflow says who is champion as scorers were asked to, whoever asked them."""

import os
from pathlib import Path

import pytest

from stream.config import MlflowSettings, Settings, TrainerSettings
from stream.runtime.trainer.job import DONE
from stream.runtime.trainer.tracking import TRACKED, TrackingFailed, client_of, crown, untracked


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(trainer=TrainerSettings(directory=str(tmp_path)))


def test_a_release_that_is_put_into_service_by_hand_is_the_champion_and_no_challenger(settings: Settings) -> None:
    client, name = client_of(settings), settings.mlflow.experiment
    client.create_registered_model(name)
    for release in ("r-1", "r-2"):
        client.create_model_version(name, "file:///nowhere", tags={"release": release})
    client.set_registered_model_alias(name, "champion", "1")
    client.set_registered_model_alias(name, "challenger", "2")

    assert crown(settings, "r-2")
    assert {alias: str(of) for alias, of in client.get_registered_model(name).aliases.items()} == {"champion": "2"}
    assert crown(settings, "r-1")
    assert {alias: str(of) for alias, of in client.get_registered_model(name).aliases.items()} == {"champion": "1"}
    assert not crown(settings, "r-3")


def test_where_nothing_was_recorded_no_store_is_made(settings: Settings, tmp_path: Path) -> None:
    assert not crown(settings, "r-1")
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_reached_is_a_failure_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    away = Settings(
        trainer=TrainerSettings(directory=str(tmp_path)),
        mlflow=MlflowSettings(tracking_uri=f"sqlite:///{tmp_path}/file/mlflow.db"),
    )
    with pytest.raises(TrackingFailed):
        crown(away, "r-1")


def test_jobs_are_recorded_in_the_order_they_were_done_in(tmp_path: Path) -> None:
    for second, job in ((3, "a"), (1, "b"), (2, "c")):
        (tmp_path / job).mkdir()
        (tmp_path / job / DONE).touch()
        os.utime(tmp_path / job / DONE, (second, second))
    (tmp_path / "c" / TRACKED).touch()
    assert untracked(tmp_path) == ["b", "a"]
