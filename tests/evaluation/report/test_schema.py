"""The published schema is what the structures say, and describes what they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from evaluation.report import schema
from evaluation.report.schema import main


def test_the_published_schema_is_that_of_the_structures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().err


def test_a_stale_schema_is_told_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(schema, "PATH", tmp_path / "report.schema.json")
    assert main(["--check"]) == 4
    assert "Run: python -m evaluation.report.schema" in capsys.readouterr().err
    assert main([]) == 0
    assert main(["--check"]) == 0
    assert main(["--what"]) == 2


def test_it_is_a_schema_in_which_classes_and_fields_are_described() -> None:
    made = schema.schema()
    Draft202012Validator.check_schema(made)
    assert all(definition["description"] for definition in made["$defs"].values())
    about = made["$defs"]["Group"]["properties"]["recall_at_1"]
    assert about["description"] == "At 1 % false positives by session, by the benign sessions of the seed."


def test_every_field_is_described() -> None:
    bare = [
        f"{name}.{field}"
        for name, definition in schema.schema()["$defs"].items()
        for field, about in definition["properties"].items()
        if not about.get("description")
    ]
    assert not bare, f"fields of model.py without a description: {', '.join(bare)}"
