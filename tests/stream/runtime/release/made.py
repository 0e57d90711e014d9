"""Releases for tests of what is done with them: small, signed or not, each with the lineage that a test wants."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from models.novelty import Novelty
from schemas.manifest import InputFile, LabelsUsed, Manifest, TrainingInput
from stream.config import Settings
from stream.runtime.release_store import write_release
from stream.state.schema import tenant_table, warm_columns
from tests.stream.releases import random_bank, release

DATA = TrainingInput(
    files=[InputFile(name="captured.jsonl.gz", sha256="a" * 64, bytes=12)],
    events=7,
    sessions=3,
    tenants=2,
    left_out=0,
    dead_letters=0,
    first_event_ms=1_795_000_000_000,
    last_event_ms=1_795_000_900_000,
    events_sha256="b" * 64,
)


def key_file(directory: Path, name: str = "key.pem") -> tuple[Path, str]:
    """A private key as a file, and its public key."""
    key = Ed25519PrivateKey.generate()
    path = directory / name
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path, b64encode(key.public_key().public_bytes_raw()).decode()


def signing(settings: Settings, path: Path) -> Settings:
    """Settings that sign what they write with the key at `path`."""
    return replace(settings, release=replace(settings.release, signing_key_file=str(path)))


def make(
    out: Path,
    settings: Settings,
    *,
    seed: int = 1,
    parent: str | None = None,
    space_id: str = "words-32",
    labels: LabelsUsed | None = None,
    days: int = 0,
    **data: Any,
) -> Manifest:
    """Write a release to `out`; one made with the key that `settings` sign with, if they do.

    Parameters
    ----------
    days
        By which it is newer than `DATA` says.
    data
        Fields of `DATA` to be others.
    """
    columns = tenant_table(Novelty(dim=32))
    made = replace(
        release(space_id=space_id),
        bank=random_bank(seed, tenants=0),
        adapters={},
        warm={name: np.asarray(columns[name][:0]) for name in warm_columns(columns)},
        warm_rows={},
        sessions_per_day={},
    )
    last = DATA.last_event_ms + days * 86_400_000
    given = msgspec.structs.replace(DATA, labels=labels, last_event_ms=last, **data)
    return write_release(
        out, made, data=given, metrics={"held_out_flagged_at_0.01": 0.01 + seed / 1000}, parent=parent, seed=seed,
        git_revision="c" * 40, settings=settings,
    )  # fmt: skip
