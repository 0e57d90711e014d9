"""A release is loaded as it was written, or refused in one sentence."""

from __future__ import annotations

import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from safetensors.numpy import load_file, save

from models.attack_direction import AttackDirection
from models.novelty import Novelty
from models.text_models import TextModels
from models.volume import SUB_FEATURES, Volume
from schemas.manifest import InputFile, Manifest, TrainingInput
from stream.config import ReleaseSettings, Settings
from stream.errors import StateError, UsageError
from stream.release import Release
from stream.runtime import release_store
from stream.runtime.release_store import CALIBRATION, MANIFEST, load_release, read_manifest, write_release
from stream.state.schema import tenant_table, warm_columns
from tests.stream.releases import release

SETTINGS = Settings()
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


NOTHING = b"\x02\0\0\0\0\0\0\0{}"
"""A safetensors file without tensors."""


def whole_release() -> Release:
    """A release that knows two tenants, each by a whole row."""
    table = tenant_table(Novelty(dim=32))
    rng = np.random.default_rng(1)
    warm: dict[str, np.ndarray[Any, Any]] = {}
    for name in warm_columns(table):
        column = table[name]
        warm[name] = rng.integers(0, 60, (2, *column.shape[1:])).astype(column.dtype)
    signals = release(reading=True)
    volume = Volume({**signals.volume.to_arrays(), "unit": np.linspace(0.5, 2.0, len(SUB_FEATURES))})
    return replace(signals, volume=volume, warm=warm, warm_rows={"team-1": 1, "team-0": 0})


def written(out: Path, settings: Settings = SETTINGS, **changed: Any) -> Manifest:
    given: dict[str, Any] = {
        "data": DATA,
        "metrics": {"held_out_flagged_at_0.01": 0.012},
        "parent": None,
        "seed": 7,
        "git_revision": "c" * 40,
        **changed,
    }
    return write_release(out, given.pop("release", whole_release()), settings=settings, **given)


def signing(tmp_path: Path, name: str = "key.pem") -> tuple[Settings, Settings]:
    """Settings that sign, and settings that trust that signature alone."""
    key = Ed25519PrivateKey.generate()
    path = tmp_path / name
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = b64encode(key.public_key().public_bytes_raw()).decode()
    return (
        Settings(release=ReleaseSettings(signing_key_file=str(path))),
        Settings(release=ReleaseSettings(trusted_keys=(public,))),
    )


def rewrite_manifest(folder: Path, change: Callable[[dict[str, Any]], None], *, rename: bool = True) -> None:
    """Change the manifest as somebody would who knows how releases get their names, but has no key."""
    plain = orjson.loads((folder / MANIFEST).read_bytes())
    change(plain)
    if rename:
        plain["name"] = release_store._name(plain)
    (folder / MANIFEST).write_bytes(orjson.dumps(plain))


def replace_file(folder: Path, name: str, body: bytes) -> None:
    """Put another file in the place of one, and its hash into the manifest."""
    (folder / name).write_bytes(body)
    stored = {"sha256": sha256(body).hexdigest(), "bytes": len(body)}
    rewrite_manifest(folder, lambda plain: plain["files"].update({name: stored}))


def test_a_release_is_loaded_as_it_was_written(tmp_path: Path) -> None:
    manifest = written(tmp_path / "r")
    original, loaded = whole_release(), load_release(tmp_path / "r", SETTINGS, "words-32")
    assert (loaded.name, loaded.ids) == (manifest.name, original.ids)
    assert loaded.warm_rows == loaded.adapters == {"team-0": 0, "team-1": 1}
    for name, column in original.warm.items():
        assert (loaded.warm[name].dtype, loaded.warm[name].tolist()) == (column.dtype, column.tolist())
    for name, array in original.bank.arrays.items():
        assert np.array_equal(loaded.bank.arrays[name], array)
    for theirs, ours in (
        (loaded.texts.to_arrays(), original.texts.to_arrays()),
        (loaded.volume.to_arrays(), original.volume.to_arrays()),
    ):
        assert {name: (array.dtype, array.shape, array.tobytes()) for name, array in theirs.items()} == {
            name: (array.dtype, array.shape, array.tobytes()) for name, array in ours.items()
        }
    assert loaded.sessions_per_day == {"team-0": 30.0, "team-1": 10.0}
    assert orjson.dumps(loaded.calibration.to_arrays(), option=orjson.OPT_SERIALIZE_NUMPY) == orjson.dumps(
        original.calibration.to_arrays(), option=orjson.OPT_SERIALIZE_NUMPY
    )
    assert manifest.created_ms == DATA.last_event_ms


def test_equal_content_has_equal_names_and_bytes_and_other_content_another_name(tmp_path: Path) -> None:
    names = [written(tmp_path / place).name for place in ("a", "b")]
    assert names[0] == names[1]
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert written(tmp_path / "c", seed=8).name != names[0]
    assert written(tmp_path / "d", git_revision=None).name == names[0]


def test_a_file_that_the_manifest_does_not_name_is_ignored(tmp_path: Path) -> None:
    manifest = written(tmp_path / "r")
    (tmp_path / "r" / "evil.pickle").write_bytes(b"cos\nsystem\n")
    assert load_release(tmp_path / "r", SETTINGS).name == manifest.name


@pytest.mark.parametrize("name", release_store._FILES)
def test_a_file_that_differs_from_its_hash_is_refused(tmp_path: Path, name: str) -> None:
    written(tmp_path / "r")
    path = tmp_path / "r" / name
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(body)
    with pytest.raises(StateError, match=rf"{name} must have sha256 .* damaged or was changed\. Name another release"):
        load_release(tmp_path / "r", SETTINGS)
    path.write_bytes(body[:-1])
    with pytest.raises(StateError, match=rf"{name} must be a file of {len(body)} bytes"):
        load_release(tmp_path / "r", SETTINGS)
    path.unlink()
    with pytest.raises(StateError, match=rf"{name} cannot be read: No such file"):
        load_release(tmp_path / "r", SETTINGS)


def test_a_directory_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"manifest\.json cannot be read: No such file .* 'tidegate train'"):
        load_release(tmp_path / "none", SETTINGS)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"name": "r-1", "v": 2}', b"\xff\xfe", b"[" * 3000], ids=range(7)
)
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, body: bytes) -> None:
    written(tmp_path / "r")
    (tmp_path / "r" / MANIFEST).write_bytes(body)
    with pytest.raises(StateError, match=r"manifest\.json is not one that this version reads"):
        load_release(tmp_path / "r", SETTINGS)


def test_a_release_whose_signals_combined_otherwise_is_refused_with_the_remedy(tmp_path: Path) -> None:
    written(tmp_path / "r")
    rewrite_manifest(tmp_path / "r", lambda plain: plain["calibration"].pop("groups"))
    with pytest.raises(StateError, match=r"missing required field `groups` .* make it anew with 'tidegate train'"):
        load_release(tmp_path / "r", SETTINGS)


def test_a_release_whose_signals_had_no_limits_is_refused_with_the_remedy(tmp_path: Path) -> None:
    written(tmp_path / "r")
    calibration = load_file(tmp_path / "r" / CALIBRATION)
    replace_file(tmp_path / "r", CALIBRATION, save({n: a for n, a in calibration.items() if n != "limits"}))
    with pytest.raises(StateError, match=r"needs the array limits, .* make it anew with 'tidegate train'"):
        load_release(tmp_path / "r", SETTINGS)


@pytest.mark.parametrize("number", [-1, 16, 1 << 63])
def test_a_group_that_no_calibration_has_is_refused(tmp_path: Path, number: int) -> None:
    written(tmp_path / "r")
    rewrite_manifest(tmp_path / "r", lambda plain: plain["calibration"]["groups"].__setitem__(0, number))
    with pytest.raises(StateError, match=r"manifest\.json is not one that this version reads"):
        load_release(tmp_path / "r", SETTINGS)


def test_a_changed_manifest_no_longer_has_its_name(tmp_path: Path) -> None:
    written(tmp_path / "r")
    rewrite_manifest(tmp_path / "r", lambda plain: plain["metrics"].update(recall=1.0), rename=False)
    with pytest.raises(StateError, match=r"manifest\.json was changed after it was written"):
        load_release(tmp_path / "r", SETTINGS)


@pytest.mark.parametrize("name", ["../bank.safetensors", "/etc/passwd", "a/b.json", "..", "x" * 100 + ".json"])
def test_a_manifest_cannot_name_a_file_elsewhere(tmp_path: Path, name: str) -> None:
    written(tmp_path / "r")
    stored = {"sha256": "0" * 64, "bytes": 1}
    rewrite_manifest(tmp_path / "r", lambda plain: plain["files"].update({name: stored}))
    with pytest.raises(StateError, match=r"manifest\.json is not one that this version reads"):
        load_release(tmp_path / "r", SETTINGS)


@pytest.mark.parametrize("field", ["feature_schema", "state_schema"])
def test_a_release_of_another_version_is_refused(tmp_path: Path, field: str) -> None:
    other: dict[str, Any] = {field: "0.other"}
    written(tmp_path / "r", release=replace(whole_release(), **other))
    with pytest.raises(
        StateError, match=rf"{field} must be .*, as this version and its settings have it; it is 0\.other"
    ):
        load_release(tmp_path / "r", SETTINGS)


def test_a_release_of_another_embedding_space_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "r")
    with pytest.raises(StateError, match=r"space_id must be words-64, .*; it is words-32"):
        load_release(tmp_path / "r", SETTINGS, "words-64")


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("bank.safetensors", b"no tensors", r"bank\.safetensors is no safetensors file"),
        ("texts.safetensors", b"no tensors", r"texts\.safetensors is no safetensors file"),
        ("texts.safetensors", NOTHING, r"text models must hold ngrams\.masks, .*; got \[\]"),
        ("volume.safetensors", b"no tensors", r"volume\.safetensors is no safetensors file"),
        ("volume.safetensors", NOTHING, r"gauge_prior must be float64 .*; got none"),
        ("tenants.json", b'[["team-0",3.0],["team-0",1.0]]', r"tenants\.json must name each tenant once"),
        ("tenants.json", b'[["team-0",3.0]]', r"must have an adapter for each of 1 tenants; it has 2"),
        ("tenants.json", b'{"a": 1}', r"tenants\.json must be a JSON array of \[name, sessions a day\]"),
        ("tenants.json", b'["team-0","team-1"]', r"tenants\.json must be a JSON array of \[name, sessions a day\]"),
        ("tenants.json", b'[["team-0",-1.0],["team-1",1.0]]', r"tenants\.json must be .* Expected `float` >= 0"),
        ("warm.safetensors", NOTHING, r"warm\.safetensors must hold the columns .*; it holds \[\]"),
    ],
)
def test_files_that_are_hashed_but_make_no_release_are_refused(
    tmp_path: Path, name: str, body: bytes, said: str
) -> None:
    written(tmp_path / "r")
    replace_file(tmp_path / "r", name, body)
    with pytest.raises(StateError, match=said):
        load_release(tmp_path / "r", SETTINGS)


def test_warm_rows_of_another_shape_are_refused(tmp_path: Path) -> None:
    original = whole_release()
    warm = {**original.warm, "weights": original.warm["weights"].astype(np.float64)}
    written(tmp_path / "r", release=replace(original, warm=warm))
    with pytest.raises(StateError, match=r"warm\.safetensors: weights must be float32 \(2, \d+\); it is float64"):
        load_release(tmp_path / "r", SETTINGS)


def test_a_direction_among_other_vectors_is_refused(tmp_path: Path) -> None:
    original = whole_release()
    direction = AttackDirection({"codes": np.ones(31, np.int16), "unit": np.array(0.5), "constant": np.array(0.0)})
    texts = TextModels(original.texts.ngrams, original.texts.role_surprise, direction=direction)
    written(tmp_path / "r", release=replace(original, texts=texts))
    with pytest.raises(StateError, match="attack direction must be of 32 dimensions, as vectors are; it is of 31"):
        load_release(tmp_path / "r", SETTINGS)


def test_a_release_signed_with_a_trusted_key_is_loaded(tmp_path: Path) -> None:
    signs, trusts = signing(tmp_path)
    manifest = written(tmp_path / "r", signs)
    assert load_release(tmp_path / "r", trusts).name == manifest.name
    assert load_release(tmp_path / "r", SETTINGS).name == manifest.name
    assert manifest.name == written(tmp_path / "unsigned").name


def test_once_keys_are_trusted_an_unsigned_release_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "r")
    with pytest.raises(StateError, match=r"it is unsigned, and release\.trusted_keys asks for a signature"):
        load_release(tmp_path / "r", signing(tmp_path)[1])


def test_a_release_signed_with_another_key_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "r", signing(tmp_path, "theirs.pem")[0])
    with pytest.raises(StateError, match=r"which is not among release\.trusted_keys"):
        load_release(tmp_path / "r", signing(tmp_path)[1])


@pytest.mark.parametrize(
    "change",
    [
        lambda plain: plain["metrics"].update(recall=1.0),
        lambda plain: plain.update(git_revision="d" * 40),
        lambda plain: plain["signature"].update(value=b64encode(bytes(64)).decode()),
        lambda plain: plain["signature"].update(value="not base64"),
    ],
)
def test_a_release_changed_after_it_was_signed_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    signs, trusts = signing(tmp_path)
    written(tmp_path / "r", signs)
    rewrite_manifest(tmp_path / "r", change)
    with pytest.raises(StateError, match=r"its signature is not of this manifest"):
        load_release(tmp_path / "r", trusts)


@pytest.mark.parametrize("body", [None, b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_signing_key_that_is_none_is_a_usage_error(tmp_path: Path, body: bytes | None) -> None:
    path = tmp_path / "key.pem"
    if body is not None:
        path.write_bytes(body)
    with pytest.raises(UsageError, match=r"must hold an unencrypted Ed25519 private key .* openssl genpkey"):
        written(tmp_path / "r", Settings(release=ReleaseSettings(signing_key_file=str(path))))


@pytest.mark.parametrize("exchange", [True, False])
def test_a_release_takes_the_place_of_another(tmp_path: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchange:
        monkeypatch.setattr(release_store, "_exchange", lambda _a, _b: False)
    written(tmp_path / "r")
    (tmp_path / "r" / "notes.txt").write_text("of the former")
    second = written(tmp_path / "r", seed=8)
    assert read_manifest(tmp_path / "r", SETTINGS) == second
    assert [path.name for path in tmp_path.iterdir()] == ["r"]
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == sorted([MANIFEST, *release_store._FILES])


def test_an_empty_directory_is_taken_and_a_missing_parent_made(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert written(tmp_path / "empty").name == written(tmp_path / "a" / "b" / "c").name


def test_whatever_is_no_release_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    (tmp_path / "file").write_bytes(b"")
    for name in ("photos", "file"):
        with pytest.raises(UsageError, match=r"must be new, empty or a release, .*Name another directory"):
            written(tmp_path / name)
    assert (tmp_path / "photos" / "cat.jpg").read_bytes() == b"cat"


def test_a_write_that_fails_leaves_the_former_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = written(tmp_path / "r")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UsageError, match=r"--out .* cannot be written: No space left on device"):
        written(tmp_path / "r", seed=8)
    assert load_release(tmp_path / "r", SETTINGS).name == first.name
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_a_link_stays_and_what_it_names_is_replaced(tmp_path: Path) -> None:
    written(tmp_path / "r-1")
    (tmp_path / "current").symlink_to("r-1")
    second = written(tmp_path / "current", seed=8)
    assert (tmp_path / "current").is_symlink()
    assert load_release(tmp_path / "r-1", SETTINGS).name == second.name


def test_loading_imports_neither_torch_nor_scipy(tmp_path: Path) -> None:
    written(tmp_path / "r")
    code = (
        "import sys; from stream.config import Settings; from stream.runtime.release_store import load_release; "
        f"load_release({str(tmp_path / 'r')!r}, Settings()); "
        "print(sorted({'torch', 'scipy', 'confluent_kafka', 'cryptography'} & sys.modules.keys()))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"


def test_files_for_people_are_named_with_their_hashes_and_checked(tmp_path: Path) -> None:
    data = written(tmp_path / "a").data
    manifest = write_release(
        tmp_path / "b", whole_release(), data=data, metrics={}, parent=None, seed=1, git_revision=None,
        settings=SETTINGS, more={"card.md": b"# A card\n"},
    )  # fmt: skip
    assert manifest.files["card.md"].sha256 == sha256(b"# A card\n").hexdigest()
    assert load_release(tmp_path / "b", SETTINGS).name == manifest.name
    (tmp_path / "b" / "card.md").write_bytes(b"# A lie!\n")
    with pytest.raises(StateError, match=r"card\.md must have sha256"):
        load_release(tmp_path / "b", SETTINGS)
