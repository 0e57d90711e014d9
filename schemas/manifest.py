"""Manifest v1: `manifest.json` of a release's directory, which names and hashes everything in it."""

from __future__ import annotations

from typing import Annotated

import msgspec

Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
FileName = Annotated[str, msgspec.Meta(pattern="^[a-z0-9_-]+(\\.[a-z0-9_-]+)+$", max_length=80)]
"""A plain name: nothing leads out of the directory."""


class StoredFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of the release."""

    sha256: Sha256
    bytes: int


class InputFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file that was trained on, by its last name."""

    name: str
    sha256: Sha256
    bytes: int


class InputRange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Offsets of a partition that was trained on."""

    topic: str
    partition: int
    from_offset: int
    to_offset: int
    """The first that was not."""


class LabelsUsed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which labels a release was made with."""

    ranges: list[InputRange]
    """Of the labels topic."""
    labels_sha256: Sha256
    """Of the labels that counted, sorted by key, each as JSON with sorted keys and a line feed."""
    attacks: int
    benign: int
    left_out: int
    """Disputed, of another verdict, or refused by the audit."""
    findings: list[str]
    """Uids of the findings behind them, sorted."""
    analysts: list[str]


class Teacher(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The language model that the classifier of known attacks was distilled from."""

    base: str
    """Of the weights that it began with."""
    sha256: Sha256
    """Of the fine-tuned weights."""
    examples: int
    metrics: dict[str, float]
    """Of the teacher and its student on segments held out by session."""


class TrainingInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a release was trained on."""

    files: list[InputFile] = []
    ranges: list[InputRange] = []
    events: int
    sessions: int
    tenants: int
    left_out: int
    """Sessions of a labelled input that are not benign; of a job's those that are held out, attacks or suspects."""
    dead_letters: int
    """Records that could not be read."""
    first_event_ms: int
    last_event_ms: int
    events_sha256: Sha256
    """Of the normalised events, in the order of training, with those that speak like confirmed attacks."""
    labels: LabelsUsed | None = None
    """Where analysts' verdicts taught it something."""
    teacher: Teacher | None = None
    request_id: str | None = None
    """Of the retrain request that asked for it."""


class CalibrationMeta(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What of the calibration is not an array."""

    kinds: list[str]
    scales: list[str]
    groups: list[Annotated[int, msgspec.Meta(ge=0, le=15)]]
    """Of each kind a number, the same for kinds that speak of the same thing."""
    combined: list[int]


class Signature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ed25519 over the manifest as JSON with sorted keys, without spaces and without `signature`."""

    key: Annotated[str, msgspec.Meta(max_length=128)]
    """The public key, base64 of 32 bytes."""
    value: Annotated[str, msgspec.Meta(max_length=128)]
    """Base64 of 64 bytes."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a release is, where it comes from, and the hashes of its files."""

    v: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1
    name: str
    """`r-` and the first 12 hex digits of sha256 over the manifest without `name`, `git_revision` and `signature`."""
    space_id: str
    """Embedder's weights, pooling, length and segmentation."""
    feature_schema: str
    state_schema: str
    files: dict[FileName, StoredFile]
    calibration: CalibrationMeta
    data: TrainingInput
    metrics: dict[str, float]
    """Of sessions held out from the fit."""
    parent: str | None
    """Name of the release that this one followed."""
    seed: int
    created_ms: int
    """The latest event that was trained on: no clock, so that the same input gives the same bytes."""
    git_revision: str | None = None
    """Of the code that trained."""
    signature: Signature | None = None
