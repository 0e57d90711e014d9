"""Releases as directories: written whole or not at all, and believed only as far as their hashes and signature go."""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from models.autoencoder import SequenceBank
from models.calibration import Calibration
from models.novelty import Novelty
from models.text_models import TextModels
from models.volume import Volume
from schemas.manifest import CalibrationMeta, Manifest, StoredFile, TrainingInput
from schemas.undecodable import UNDECODABLE
from stream.config import Settings
from stream.errors import StateError, UsageError
from stream.release import Release
from stream.runtime.signing import sign, verify
from stream.state.schema import FEATURE_SCHEMA, FEATURES, KINDS, STATE_SCHEMA, WINDOW, tenant_table, warm_columns

MANIFEST = "manifest.json"
BANK, TEXTS, VOLUME = "bank.safetensors", "texts.safetensors", "volume.safetensors"
CALIBRATION = "calibration.safetensors"
WARM, TENANTS = "warm.safetensors", "tenants.json"
CARD = "card.md"
_FILES = (BANK, TEXTS, VOLUME, CALIBRATION, WARM, TENANTS)
_RETRAIN = "Name another release, or make it anew with 'tidegate train'."


class _Refused(Exception):
    """Why a directory is no release that this process may serve."""


def load_release(path: Path | str, settings: Settings, space_id: str | None = None) -> Release:
    """The release in directory `path`, once every hash, the signature and the ids have been found good.

    Files that the manifest does not name are not looked at.

    Parameters
    ----------
    settings
        Of which `release.trusted_keys` is read: while it is empty, a release may be unsigned.
    space_id
        Of the embedder in use; None leaves the comparison to the caller.

    Raises
    ------
    StateError
        When it is missing, damaged, changed, unsigned where it must be signed, or made for something else.
    """
    folder = Path(path)
    try:
        manifest = _checked(folder, settings)
        return _release(manifest, _files(folder, manifest), space_id)
    except _Refused as refused:
        raise StateError(f"release {folder}: {refused}. {_RETRAIN}") from refused


def read_manifest(path: Path | str, settings: Settings) -> Manifest:
    """The manifest alone, its name and signature checked, its files not.

    Raises
    ------
    StateError
        As `load_release`.
    """
    try:
        return _checked(Path(path), settings)
    except _Refused as refused:
        raise StateError(f"release {path}: {refused}. {_RETRAIN}") from refused


def write_release(
    out: Path,
    release: Release,
    *,
    data: TrainingInput,
    metrics: Mapping[str, float],
    parent: str | None,
    seed: int,
    git_revision: str | None,
    settings: Settings,
    more: Mapping[str, bytes] | None = None,
) -> Manifest:
    """Write `release`, whatever it is called, to directory `out` under the name that its content gives it.

    What stood at `out` is replaced in one step, and only if it was a release or empty.

    Parameters
    ----------
    more
        Files for people, such as the card, that the manifest names beside what is scored with.

    Raises
    ------
    UsageError
        When something else stands at `out`, it cannot be written, or `release.signing_key_file` holds no key.
    """
    out = Path(os.path.realpath(out))
    check_replaceable(out)
    calibration, meta = release.calibration.to_arrays()
    names = [name for name, _ in sorted(release.warm_rows.items(), key=lambda item: item[1])]
    contents = {
        BANK: _packed(release.bank.arrays),
        TEXTS: _packed(release.texts.to_arrays()),
        VOLUME: _packed(release.volume.to_arrays()),
        CALIBRATION: _packed(calibration),
        WARM: _packed(release.warm),
        TENANTS: orjson.dumps([[name, release.sessions_per_day.get(name, 0.0)] for name in names]),
    }
    contents = {**(more or {}), **contents}
    manifest = Manifest(
        name="",
        space_id=release.space_id,
        feature_schema=release.feature_schema,
        state_schema=release.state_schema,
        files={name: StoredFile(sha256=sha256(body).hexdigest(), bytes=len(body)) for name, body in contents.items()},
        calibration=msgspec.convert(meta, CalibrationMeta),
        data=data,
        metrics=dict(metrics),
        parent=parent,
        seed=seed,
        created_ms=data.last_event_ms,
        git_revision=git_revision,
    )
    manifest = msgspec.structs.replace(manifest, name=_name(msgspec.to_builtins(manifest)))
    if settings.release.signing_key_file:
        signature = sign(_signed(msgspec.to_builtins(manifest)), Path(settings.release.signing_key_file))
        manifest = msgspec.structs.replace(manifest, signature=signature)
    readable = orjson.dumps(msgspec.to_builtins(manifest), option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2)
    try:
        _replace(out, {**contents, MANIFEST: readable + b"\n"})
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"--out {out} cannot be written: {reason}. Name another directory.") from error
    return manifest


def check_replaceable(out: Path) -> None:
    """Whether a release may take the place of `out`: nothing, an empty directory or a release.

    Raises
    ------
    UsageError
        When it may not.
    """
    if not out.exists() or (out.is_dir() and ((out / MANIFEST).is_file() or not any(out.iterdir()))):
        return
    raise UsageError(
        f"--out {out} must be new, empty or a release, which is replaced; it holds something else. "
        "Name another directory."
    )


# -- reading -----------------------------------------------------------------------------------------------------------


def _checked(folder: Path, settings: Settings) -> Manifest:
    try:
        raw = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise _Refused(f"{MANIFEST} cannot be read: {error.strerror or error}") from error
    try:
        plain: dict[str, Any] = orjson.loads(raw)
        manifest = msgspec.convert(plain, Manifest)
    except (orjson.JSONDecodeError, msgspec.ValidationError) as error:
        raise _Refused(f"{MANIFEST} is not one that this version reads: {error}") from error
    if (name := _name(plain)) != manifest.name:
        raise _Refused(f"{MANIFEST} was changed after it was written: what it says is {name}, not {manifest.name}")
    trusted = settings.release.trusted_keys
    if trusted:
        if manifest.signature is None:
            raise _Refused(
                "it is unsigned, and release.trusted_keys asks for a signature; set release.signing_key_file for train"
            )
        if fault := verify(_signed(plain), manifest.signature, trusted):
            raise _Refused(fault)
    return manifest


def _files(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    """The files, each as its hash says."""
    if missing := [name for name in _FILES if name not in manifest.files]:
        raise _Refused(f"{MANIFEST} does not name {', '.join(missing)}")
    bodies = {}
    for name, stored in manifest.files.items():
        path = folder / name
        try:
            if path.stat().st_size != stored.bytes:
                raise _Refused(f"{name} must be a file of {stored.bytes} bytes, as {MANIFEST} says; it is not")
            body = path.read_bytes()
        except OSError as error:
            raise _Refused(f"{name} cannot be read: {error.strerror or error}") from error
        if (found := sha256(body).hexdigest()) != stored.sha256:
            raise _Refused(f"{name} must have sha256 {stored.sha256}; it has {found}, so it is damaged or was changed")
        bodies[name] = body
    return bodies


def _release(manifest: Manifest, bodies: Mapping[str, bytes], space_id: str | None) -> Release:
    ours = {"space_id": space_id or manifest.space_id, "feature_schema": FEATURE_SCHEMA, "state_schema": STATE_SCHEMA}
    for name, own in ours.items():
        if (theirs := getattr(manifest, name)) != own:
            raise _Refused(f"{name} must be {own}, as this version and its settings have it; it is {theirs}")
    try:
        bank = SequenceBank(_unpacked(bodies[BANK], BANK))
        texts = TextModels.from_arrays(_unpacked(bodies[TEXTS], TEXTS))
        volume = Volume(_unpacked(bodies[VOLUME], VOLUME))
        meta = msgspec.to_builtins(manifest.calibration)
        calibration = Calibration.from_arrays(_unpacked(bodies[CALIBRATION], CALIBRATION), meta)
    except ValueError as error:
        raise _Refused(str(error).rstrip(".")) from error
    if calibration.kinds != KINDS:
        raise _Refused(f"its signals must be {', '.join(KINDS)}; they are {', '.join(calibration.kinds)}")
    if (bank.shape.features, bank.shape.steps) != (len(FEATURES), WINDOW):
        raise _Refused(f"{BANK} must see {len(FEATURES)} features of {WINDOW} events, as feature_schema says")
    tenants = _tenants(bodies[TENANTS])
    if bank.shape.tenants not in (0, len(tenants)):
        raise _Refused(f"{BANK} must have an adapter for each of {len(tenants)} tenants; it has {bank.shape.tenants}")
    warm = _unpacked(bodies[WARM], WARM)
    _check_warm(warm, len(tenants))
    dim = warm["memory"].shape[-1]
    if texts.direction is not None and texts.direction.dim != dim:
        raise _Refused(
            f"{TEXTS}: an attack direction must be of {dim} dimensions, as vectors are; it is of {texts.direction.dim}"
        )
    rows = {tenant: row for row, tenant in enumerate(tenants)}
    return Release(
        name=manifest.name,
        space_id=manifest.space_id,
        feature_schema=manifest.feature_schema,
        state_schema=manifest.state_schema,
        bank=bank,
        texts=texts,
        volume=volume,
        calibration=calibration,
        adapters=rows if bank.shape.tenants else {},
        warm=warm,
        warm_rows=rows,
        sessions_per_day=tenants,
    )


def _check_warm(warm: Mapping[str, NDArray[Any]], tenants: int) -> None:
    """Whether warm rows fit the tenant table."""
    dim = warm["memory"].shape[-1] if "memory" in warm else 1
    table = tenant_table(Novelty(dim=dim))
    columns = set(warm_columns(table))
    if set(warm) != columns:
        raise _Refused(f"{WARM} must hold the columns {', '.join(sorted(columns))}; it holds {sorted(warm)}")
    for name, column in warm.items():
        expected = table[name]
        if column.dtype != expected.dtype or column.shape != (tenants, *expected.shape[1:]):
            raise _Refused(
                f"{WARM}: {name} must be {expected.dtype} {(tenants, *expected.shape[1:])}; "
                f"it is {column.dtype} {column.shape}"
            )


def _tenants(body: bytes) -> dict[str, float]:
    """Sessions a day by tenant, in the order of their rows."""
    try:
        pairs = msgspec.json.decode(body, type=list[tuple[str, Annotated[float, msgspec.Meta(ge=0)]]])
    except UNDECODABLE as error:
        raise _Refused(f"{TENANTS} must be a JSON array of [name, sessions a day]: {error}") from error
    tenants = dict(pairs)
    if len(tenants) != len(pairs):
        raise _Refused(f"{TENANTS} must name each tenant once")
    return tenants


def _packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    from safetensors.numpy import save

    # No metadata: safetensors orders it at random, and one input would not give one file.
    return save({name: np.asarray(arrays[name], order="C") for name in sorted(arrays)})


def _unpacked(body: bytes, name: str) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(body))
    except SafetensorError as error:
        raise _Refused(f"{name} is no safetensors file: {error}") from error


# -- names and signatures ----------------------------------------------------------------------------------------------


def _name(plain: Mapping[str, Any]) -> str:
    named = {key: value for key, value in plain.items() if key not in ("name", "git_revision", "signature")}
    return "r-" + sha256(orjson.dumps(named, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]


def _signed(plain: Mapping[str, Any]) -> bytes:
    return orjson.dumps({k: v for k, v in plain.items() if k != "signature"}, option=orjson.OPT_SORT_KEYS)


# -- writing -----------------------------------------------------------------------------------------------------------


def _replace(out: Path, contents: Mapping[str, bytes]) -> None:
    """Put a directory of `contents` in the place of `out`, in one step where the file system can."""
    out.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        made.chmod(0o755)
        for name, body in contents.items():
            with (made / name).open("wb") as stream:
                stream.write(body)
                stream.flush()
                os.fsync(stream.fileno())
        if not out.exists():
            made.rename(out)
        elif not _exchange(made, out):
            # Between these two renames there is no release at `out`.
            former = made.with_name(made.name + ".former")
            out.rename(former)
            made.rename(out)
            made = former
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _exchange(a: Path, b: Path) -> bool:
    """Let two directories change places in one step; False where the system cannot."""
    at_cwd, rename_exchange = -100, 2
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    return renameat2 is not None and renameat2(at_cwd, os.fsencode(a), at_cwd, os.fsencode(b), rename_exchange) == 0
