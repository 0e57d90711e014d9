"""What a job's gate is told of releases, and what it leaves where there is nothing to compare."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import pytest

from schemas.manifest import LabelsUsed, Manifest
from stream.config import ReleaseSettings, Settings
from stream.runtime.release.registry import Registry
from stream.runtime.trainer.gating import Gated, gate, learned_findings
from stream.training.dataset import DataSet
from tests.doubles import WordEmbedder
from tests.stream.releases import release
from tests.stream.runtime.release.made import key_file, make, signing


def uid(name: str) -> str:
    return sha256(name.encode()).hexdigest()[:32]


def used(*findings: str) -> LabelsUsed:
    return LabelsUsed(
        ranges=[],
        labels_sha256="c" * 64,
        attacks=len(findings),
        benign=0,
        left_out=0,
        findings=sorted(uid(name) for name in findings),
        analysts=["ada"],
    )


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(release=ReleaseSettings(directory=str(tmp_path / "releases")))


def made(settings: Settings, out: Path, **more: Any) -> Manifest:
    manifest = make(out, settings, **more)
    Registry(settings).add(out)
    return manifest


def test_what_a_champion_knew_are_its_findings_and_those_of_all_before_it(settings: Settings, tmp_path: Path) -> None:
    first = made(settings, tmp_path / "a", labels=used("first"))
    # Nobody's verdicts taught the second.
    second = made(settings, tmp_path / "b", parent=first.name, seed=2)
    third = made(settings, tmp_path / "c", parent=second.name, labels=used("third", "another"), seed=3)
    made(settings, tmp_path / "d", parent=third.name, labels=used("after it"), seed=4)
    assert learned_findings(third, settings) == {uid("first"), uid("third"), uid("another")}
    assert learned_findings(second, settings) == {uid("first")}


def test_a_line_ends_at_a_parent_that_is_not_in_the_registry(settings: Settings, tmp_path: Path) -> None:
    champion = made(settings, tmp_path / "a", parent="r-000000000000", labels=used("own"))
    assert learned_findings(champion, settings) == {uid("own")}


def test_a_parent_that_nobody_vouches_for_is_not_believed(settings: Settings, tmp_path: Path) -> None:
    key, public = key_file(tmp_path)
    forged = made(settings, tmp_path / "a", labels=used("forged"))
    signs = signing(settings, key)
    champion = made(signs, tmp_path / "b", parent=forged.name, labels=used("own"), seed=2)
    trusting = replace(settings, release=replace(settings.release, trusted_keys=(public,)))
    assert learned_findings(champion, trusting) == {uid("own")}
    assert learned_findings(champion, settings) == {uid("own"), uid("forged")}


def test_without_anything_in_service_the_reason_has_a_page_too(settings: Settings, tmp_path: Path) -> None:
    # Nothing of it is looked at.
    data = cast(DataSet, None)
    gate(tmp_path, data, [], None, (None, None), release(), settings, WordEmbedder())
    said = Gated.read(tmp_path)
    assert (said.passed, said.metrics, said.slices) == (False, {}, [])
    assert said.decision.startswith("Nothing is in service to compare it with")
    assert "Nothing is in service to compare it with" in (tmp_path / "gate.html").read_text()
