"""What `release list`, `show`, `diff` and `verify` say where no broker is needed, or none answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from schemas.manifest import InputRange, LabelsUsed, Teacher
from stream.config import KafkaSettings, ReleaseSettings, Settings
from stream.errors import StateError, UsageError
from stream.runtime import kafka_client
from stream.runtime.release.command import run
from stream.runtime.release_store import MANIFEST
from tests.stream.releases import write
from tests.stream.runtime.release.made import key_file, make, signing
from tidegate.commands import parse

NOBODY = "127.0.0.1:1"
LABELS = LabelsUsed(
    ranges=[InputRange(topic="genai.feedback.labels.v1", partition=0, from_offset=0, to_offset=9)],
    labels_sha256="c" * 64,
    attacks=5,
    benign=3,
    left_out=1,
    findings=[f"{n:032x}" for n in range(30)],
    analysts=["ada@soc", "\x1b[31mbob"],
)
TEACHER = Teacher(base="all-MiniLM-L6-v2", sha256="d" * 64, examples=90, metrics={"auc": 0.98})


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(kafka_client, "CONNECT_SECONDS", 0.2)
    return Settings(
        kafka=KafkaSettings(bootstrap_servers=NOBODY),
        release=ReleaseSettings(directory=str(tmp_path / "releases")),
    )


def said(capsys: pytest.CaptureFixture[str], settings: Settings, *flags: str) -> str:
    assert run(settings, parse(["release", *flags])) == 0
    return capsys.readouterr().out


def told(capsys: pytest.CaptureFixture[str], settings: Settings, *flags: str) -> Any:
    return orjson.loads(said(capsys, settings, *flags, "--json"))


def test_list_shows_the_directory_where_no_broker_answers(
    capsys: pytest.CaptureFixture[str], settings: Settings, tmp_path: Path
) -> None:
    key, _ = key_file(tmp_path)
    first = make(tmp_path / "releases" / "a", settings)
    second = make(tmp_path / "releases" / "b", signing(settings, key), seed=2, parent=first.name, days=1)
    (tmp_path / "releases" / "c").mkdir()
    (tmp_path / "releases" / "c" / MANIFEST).write_text("{}")
    heads, one, two, three, *notes = said(capsys, settings, "list").splitlines()
    assert heads.split() == ["release", "created", "parent", "signature", "alias", "partitions", "gate's", "decision"]
    assert one.split() == [first.name, "2026-11-18T11:21:40Z", "-", "unsigned", "-", "-", "-"]
    assert two.split() == [second.name, "2026-11-19T11:21:40Z", first.name, "signed", "-", "-", "-"]
    assert three.startswith("c ")
    assert "damaged: release" in three
    assert (
        f"The broker was not asked, so what is announced and served is not shown: kafka.bootstrap_servers {NOBODY}"
        in "\n".join(notes)
    )
    assert "set release.trusted_keys" in "\n".join(notes)
    plain = told(capsys, settings, "list")
    assert [each["release"] for each in plain["releases"]] == [first.name, second.name, "c"]
    assert plain["broker"].startswith("kafka.bootstrap_servers")


def test_an_empty_directory_is_said_to_be_empty(capsys: pytest.CaptureFixture[str], settings: Settings) -> None:
    assert said(capsys, settings, "list").startswith("No release in ")


def test_show_tells_where_a_release_comes_from(
    capsys: pytest.CaptureFixture[str], settings: Settings, tmp_path: Path
) -> None:
    ranges = [InputRange(topic="genai.gateway.events.v1", partition=3, from_offset=10, to_offset=20)]
    manifest = make(
        tmp_path / "releases" / "a", settings, parent="r-before", labels=LABELS, teacher=TEACHER, ranges=ranges,
        request_id="f" * 32,
    )  # fmt: skip
    text = said(capsys, settings, "show", manifest.name)
    for line in (
        "data: 7 events of 3 sessions and 2 tenants",
        f"file captured.jsonl.gz: 12 bytes, sha256 {'a' * 64}",
        "genai.gateway.events.v1[3]: offsets 10 to 20",
        f"asked for by retrain request {'f' * 32}",
        f"labels: 5 attack, 3 benign, 1 left out; sha256 {'c' * 64}",
        "genai.feedback.labels.v1[0]: offsets 0 to 9",
        "analysts: ada@soc, bob",
        "verdicts on 30 findings",
        f"{4:032x}",
        "and 10 more, which --json names",
        "teacher of known_attack: all-MiniLM-L6-v2, fine-tuned on 90 segments",
        "held_out_flagged_at_0.01: 0.011",
        "bank.safetensors: ",
        "parent: r-before",
    ):
        assert line in text
    assert "\x1b" not in text
    assert told(capsys, settings, "show", manifest.name) == orjson.loads(
        (tmp_path / "releases" / "a" / MANIFEST).read_bytes()
    )


def test_diff_shows_what_differs_and_metrics_side_by_side(
    capsys: pytest.CaptureFixture[str], settings: Settings, tmp_path: Path
) -> None:
    a = make(tmp_path / "a", settings)
    b = make(tmp_path / "b", settings, seed=2, labels=LABELS, space_id="words-64", days=1)
    lines = said(capsys, settings, "diff", str(tmp_path / "a"), str(tmp_path / "b")).splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:] if line}
    assert lines[0].split() == [a.name, b.name]
    assert rows["space_id"] == ["words-32", "words-64"]
    assert rows["seed"] == ["1", "2"]
    assert rows["data.labels.attacks"] == ["-", "5"]
    assert rows["data.labels.findings"] == ["-", "30", "values"]
    assert rows["data.labels.ranges.genai.feedback.labels.v1[0]"] == ["-", "0", "to", "9"]
    assert rows["metrics.held_out_flagged_at_0.01"] == ["0.011", "0.012"]
    assert "feature_schema" not in rows
    assert "files that differ: bank.safetensors; equal: calibration.safetensors, tenants.json" in "\n".join(lines)
    assert lines[-1] == "A scorer cannot switch between them while it runs: space_id must be equal."
    plain = told(capsys, settings, "diff", str(tmp_path / "a"), str(tmp_path / "b"))
    assert plain["differing"]["space_id"] == ["words-32", "words-64"]
    assert plain["metrics"] == {"held_out_flagged_at_0.01": [0.011, 0.012]}


def test_equal_releases_are_said_to_be_equal(
    capsys: pytest.CaptureFixture[str], settings: Settings, tmp_path: Path
) -> None:
    make(tmp_path / "a", settings)
    assert "say the same" in said(capsys, settings, "diff", str(tmp_path / "a"), str(tmp_path / "a"))


def test_verify_says_who_vouches_for_a_release(
    capsys: pytest.CaptureFixture[str], settings: Settings, tmp_path: Path
) -> None:
    from stream.runtime.embedders import load_embedder

    space_id = load_embedder(settings.embedder).space_id
    (key, public), (other, _) = key_file(tmp_path), key_file(tmp_path, "other.pem")
    write(tmp_path / "unsigned", space_id)
    assert "6 files as their hashes say; unsigned: it may be given to score by path, but" in said(
        capsys, settings, "verify", str(tmp_path / "unsigned")
    )
    trusting = Settings(kafka=settings.kafka, release=ReleaseSettings(trusted_keys=(public,)))
    for name, by in (("ours", key), ("theirs", other)):
        make(tmp_path / name, signing(settings, by), space_id=space_id)
    # Made for vectors of another size: what reads its tenants' rows refuses it only once it has any.
    text = said(capsys, trusting, "verify", str(tmp_path / "ours"))
    assert f"signed with key {public}, which is trusted; ids fit" in text
    assert "of which nothing is said" in said(capsys, settings, "verify", str(tmp_path / "ours"))
    with pytest.raises(StateError, match=r"not among release\.trusted_keys"):
        run(trusting, parse(["release", "verify", str(tmp_path / "theirs")]))
    with pytest.raises(StateError, match="it is unsigned"):
        run(trusting, parse(["release", "verify", str(tmp_path / "unsigned")]))


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda out: (out / "texts.safetensors").write_bytes(b"x"), r"texts\.safetensors must be a file of"),
        (lambda out: (out / "texts.safetensors").unlink(), r"texts\.safetensors cannot be read"),
        (
            lambda out: (out / MANIFEST).write_bytes((out / MANIFEST).read_bytes().replace(b"words", b"wards")),
            "changed",
        ),
    ],
)
def test_verify_refuses_what_was_harmed(settings: Settings, tmp_path: Path, harm: Any, sentence: str) -> None:
    make(tmp_path / "r", settings)
    harm(tmp_path / "r")
    with pytest.raises(StateError, match=sentence):
        run(settings, parse(["release", "verify", str(tmp_path / "r")]))


def test_verify_refuses_another_embedders_release_and_a_signature_of_something_else(
    settings: Settings, tmp_path: Path
) -> None:
    make(tmp_path / "r", settings)
    with pytest.raises(StateError, match=r"space_id must be static-minilm-256-.*; it is words-32"):
        run(settings, parse(["release", "verify", str(tmp_path / "r")]))
    key, _ = key_file(tmp_path)
    signed, other = (make(tmp_path / f"s{seed}", signing(settings, key), seed=seed) for seed in (1, 2))
    assert signed.signature is not None
    assert other.signature is not None
    manifest = tmp_path / "s1" / MANIFEST
    manifest.write_bytes(manifest.read_bytes().replace(signed.signature.value.encode(), other.signature.value.encode()))
    with pytest.raises(StateError, match="its signature is not of this manifest"):
        run(settings, parse(["release", "verify", str(tmp_path / "s1")]))


def test_an_unknown_release_is_a_usage_error(settings: Settings) -> None:
    for action in ("show", "verify", "promote"):
        with pytest.raises(UsageError, match=r"'r-none' must be the name of a directory in release.directory"):
            run(settings, parse(["release", action, "r-none"]))
