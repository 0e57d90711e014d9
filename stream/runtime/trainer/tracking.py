"""Training runs in MLflow, beside the signed manifests: a mirror for people, and never the truth about a release.

The store is SQLite in `trainer.directory` unless `mlflow.tracking_uri` names another. Nothing else waits for it: a job
is done before it is recorded, and what could not be recorded is tried again at the next start.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from schemas.manifest import Manifest
from stream.config import Settings
from stream.runtime.release_store import CARD, read_manifest
from stream.runtime.trainer.folder import JobFolder
from stream.runtime.trainer.job import DONE, GATED, PLAN, Done, Promoted, Released
from stream.runtime.trainer.plan import Plan

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_LOG = logging.getLogger(__name__)
TRACKED = "mlflow.json"
REQUEST, PARENT = "tidegate.request_id", "tidegate.parent"
CHAMPION, CHALLENGER = "champion", "challenger"
_TEXT_MAX = 5_000
"""Characters of a tag or parameter that every store takes."""


class TrackingFailed(Exception):
    """The store did not take a run; it can be tried again."""


class Tracked(msgspec.Struct, frozen=True, kw_only=True):
    """Where a job is recorded."""

    run_id: str
    version: str
    """Of the registered model."""


def untracked(root: Path) -> list[str]:
    """Request ids of jobs under `trainer.directory` that are done and not recorded, in the order they were done in."""
    done = [path for path in root.glob(f"*/{DONE}") if not (path.parent / TRACKED).exists()]
    return [path.parent.name for path in sorted(done, key=lambda path: (path.stat().st_mtime_ns, path))]


def track(settings: Settings, folder: JobFolder) -> Tracked:
    """Record a job that is done, unless it is recorded.

    Raises
    ------
    TrackingFailed
        When the store cannot be reached, or does not take it.
    StateError
        When the job's directory is damaged.
    """
    if folder.has(TRACKED):
        return folder.read(TRACKED, Tracked)
    plan, done = folder.read(PLAN, Plan), folder.read(DONE, Done)
    path = Path(folder.read("released.json", Released).path)
    manifest = read_manifest(path, settings)
    try:
        tracked = _recorded(settings, folder, plan, done, manifest, path)
    except Exception as error:
        # Stores fail in many ways: of SQLAlchemy, of requests, of MLflow itself. None of them may cost the release.
        raise TrackingFailed(f"{type(error).__name__}: {error}") from error
    folder.write(TRACKED, tracked)
    return tracked


def crown(settings: Settings, release: str) -> bool:
    """Call the version of `release` the champion, as somebody has put it into service; whether the store knows one.

    A store that no job has made yet is not made here.

    Raises
    ------
    TrackingFailed
        When the store cannot be reached, or does not take it.
    """
    if not settings.mlflow.tracking_uri and not _local_store(settings).exists():
        return False
    try:
        client, name = client_of(settings), settings.mlflow.experiment
        versions = client.search_model_versions(f"name = '{name}'")
        ours = [version for version in versions if version.tags.get("release") == release]
        if ours:
            _aliases(client, name, str(max(int(version.version) for version in ours)), promoted=True)
    except Exception as error:
        # As in `track`.
        raise TrackingFailed(f"{type(error).__name__}: {error}") from error
    return bool(ours)


def client_of(settings: Settings) -> MlflowClient:
    """A client of the store; neither MLflow nor anything it brings says anything to anyone else."""
    # MLflow reads these when it is imported.
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    from mlflow.tracking import MlflowClient

    uri = settings.mlflow.tracking_uri or f"sqlite:///{_local_store(settings)}"
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _local_store(settings: Settings) -> Path:
    return Path(settings.trainer.directory).resolve() / "mlflow.db"


def _recorded(settings: Settings, folder: JobFolder, plan: Plan, done: Done, manifest: Manifest, path: Path) -> Tracked:
    client = client_of(settings)
    experiment = _experiment(client, settings)
    run_id = _run(client, experiment, plan, done, manifest)
    for name, value in _parameters(plan, manifest).items():
        client.log_param(run_id, name, value[:_TEXT_MAX])
    for name, number in manifest.metrics.items():
        client.log_metric(run_id, name, number, timestamp=manifest.created_ms)
    for name, number in done.seconds.items():
        client.log_metric(run_id, f"seconds_{name}", number, timestamp=manifest.created_ms)
    client.log_artifact(run_id, str(path / "manifest.json"), "release")
    if (path / CARD).is_file():
        client.log_artifact(run_id, str(path / CARD), "release")
    for file in sorted((folder.path / GATED).rglob("*")):
        if file.is_file():
            client.log_artifact(run_id, str(file), "gate")
    version = _version(client, settings.mlflow.experiment, run_id, manifest, path, done)
    _aliases(client, settings.mlflow.experiment, version, promoted=folder.read("promoted.json", Promoted).promoted)
    client.set_terminated(run_id, "FINISHED")
    return Tracked(run_id=run_id, version=version)


def _experiment(client: MlflowClient, settings: Settings) -> str:
    name = settings.mlflow.experiment
    if (found := client.get_experiment_by_name(name)) is not None:
        return str(found.experiment_id)
    location = None
    if not settings.mlflow.tracking_uri or settings.mlflow.artifact_directory:
        directory = settings.mlflow.artifact_directory or str(Path(settings.trainer.directory) / "mlflow")
        location = Path(directory).resolve().as_uri()
    return str(client.create_experiment(name, artifact_location=location))


def _run(client: MlflowClient, experiment: str, plan: Plan, done: Done, manifest: Manifest) -> str:
    """The job's run: the one that a killed attempt began, or a new one."""
    request_id = plan.request.request_id
    begun = client.search_runs([experiment], f"tags.`{REQUEST}` = '{request_id}'", max_results=1)
    if begun:
        return str(begun[0].info.run_id)
    tags = {
        REQUEST: request_id,
        "mlflow.note.content": done.decision[:_TEXT_MAX],
        "tidegate.release": manifest.name,
        "tidegate.subject": plan.request.subject,
        **({"mlflow.source.git.commit": manifest.git_revision} if manifest.git_revision else {}),
    }
    if manifest.parent is not None:
        tags[PARENT] = manifest.parent
        parents = client.search_runs([experiment], f"tags.`tidegate.release` = '{manifest.parent}'", max_results=1)
        if parents:
            tags["mlflow.parentRunId"] = str(parents[0].info.run_id)
    return str(client.create_run(experiment, tags=tags, run_name=manifest.name).info.run_id)


def _parameters(plan: Plan, manifest: Manifest) -> dict[str, str]:
    """What made the release, flat."""
    data = manifest.data
    found = {
        "release": manifest.name,
        "parent": manifest.parent or "",
        "seed": str(manifest.seed),
        "space_id": manifest.space_id,
        "feature_schema": manifest.feature_schema,
        "state_schema": manifest.state_schema,
        "git_revision": manifest.git_revision or "",
        "events": str(data.events),
        "sessions": str(data.sessions),
        "tenants": str(data.tenants),
        "events_sha256": data.events_sha256,
        "ranges": _json([msgspec.to_builtins(each) for each in data.ranges]),
        "files": _json([msgspec.to_builtins(each) for each in data.files]),
        "reasons": _json([reason.detail for reason in plan.request.reasons]),
    }
    if data.labels is not None:
        found |= {
            "labels_sha256": data.labels.labels_sha256,
            "labels_ranges": _json([msgspec.to_builtins(each) for each in data.labels.ranges]),
            "labels_attacks": str(data.labels.attacks),
            "labels_benign": str(data.labels.benign),
            "labels_left_out": str(data.labels.left_out),
        }
    if data.teacher is not None:
        found |= {"teacher_base": data.teacher.base, "teacher_sha256": data.teacher.sha256}
    return found | dict(_flat(plan.settings))


def _version(client: MlflowClient, name: str, run_id: str, manifest: Manifest, path: Path, done: Done) -> str:
    """The registered model's version of this run."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(name)
    made = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    if made:
        return str(made[0].version)
    tags = {"release": manifest.name, "events_sha256": manifest.data.events_sha256}
    source = path.resolve().as_uri()
    found = client.create_model_version(name, source, run_id=run_id, tags=tags, description=done.decision[:_TEXT_MAX])
    return str(found.version)


def _aliases(client: MlflowClient, name: str, version: str, *, promoted: bool) -> None:
    """Who is champion and who is challenger, told after the control was written and never before."""
    wanted = CHAMPION if promoted else CHALLENGER
    client.set_registered_model_alias(name, wanted, version)
    held = client.get_registered_model(name).aliases
    if promoted and str(held.get(CHALLENGER)) == version:
        client.delete_registered_model_alias(name, CHALLENGER)


def _flat(settings: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for section, values in settings.items():
        for key, value in values.items():
            yield f"{section}.{key}", value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
