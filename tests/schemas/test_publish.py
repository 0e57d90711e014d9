"""What is published is what the structures say, and every example satisfies both."""

import json
from pathlib import Path

import msgspec
import pytest
import yaml
from jsonschema import Draft202012Validator

from schemas.publish import FOLDER, STRUCTS, main, rendered

SCHEMAS = Path(__file__).parents[2] / "schemas"
EXAMPLES = sorted((SCHEMAS / "examples").glob("*/*.json"))
TOPICS = sorted((SCHEMAS / "topics").glob("*.yaml"))
MIB = 1 << 20


def test_the_published_schemas_are_those_of_the_structures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().err


def test_a_stale_schema_is_told_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("schemas.publish.FOLDER", tmp_path)
    assert main(["--check"]) == 4
    assert "events.v1.schema.json" in capsys.readouterr().err
    assert main([]) == 0
    assert main(["--check"]) == 0
    assert main(["--wrong"]) == 2


def test_nothing_is_published_that_has_no_structure() -> None:
    assert {path.name for path in FOLDER.glob("*")} == {f"{name}.schema.json" for name in STRUCTS}


@pytest.mark.parametrize("name", sorted(STRUCTS))
def test_a_published_schema_is_a_valid_json_schema(name: str) -> None:
    Draft202012Validator.check_schema(json.loads(rendered(name)))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_example_satisfies_its_schema_and_decodes_into_its_structure(path: Path) -> None:
    name = path.parent.name
    value = json.loads(path.read_bytes())
    Draft202012Validator(json.loads(rendered(name))).validate(value)
    decoded = msgspec.json.decode(path.read_bytes(), type=STRUCTS[name])
    assert set(value) <= set(STRUCTS[name].__struct_fields__)
    assert decoded == msgspec.convert(msgspec.to_builtins(decoded), STRUCTS[name])


@pytest.mark.parametrize("name", sorted(STRUCTS))
def test_every_schema_has_examples_and_refuses_an_empty_record(name: str) -> None:
    assert [path for path in EXAMPLES if path.parent.name == name]
    assert list(Draft202012Validator(json.loads(rendered(name))).iter_errors({}))


@pytest.mark.parametrize("path", TOPICS, ids=lambda path: path.stem)
def test_a_topic_file_says_everything_and_names_a_known_schema(path: Path) -> None:
    topic = yaml.safe_load(path.read_text())
    assert list(topic) == [
        "name",
        "key",
        "schema",
        "value",
        "partitions",
        "cleanup_policy",
        "retention_ms",
        "segment_bytes",
        "max_message_bytes",
        "config",
        "producers",
        "consumers",
        "description",
    ]
    assert topic["schema"] is None or topic["schema"] in STRUCTS
    assert topic["partitions"] in ("settings", "source", 1)
    assert topic["cleanup_policy"] in ("delete", "compact")


def test_topics_keep_what_the_design_promises() -> None:
    topics = {path.stem: yaml.safe_load(path.read_text()) for path in TOPICS}
    assert topics["events.v1"]["max_message_bytes"] == 8 * MIB + 64 * 1024
    assert (topics["state.v1"]["cleanup_policy"], topics["state.v1"]["segment_bytes"]) == ("compact", 64 * MIB)
    assert topics["journal.v1"]["retention_ms"] == topics["controls.v1"]["retention_ms"] == -1
    assert topics["controls.v1"]["partitions"] == 1
    assert topics["dlq"]["retention_ms"] == 3 * 24 * 3_600_000
    assert (topics["dlq"]["partitions"], topics["dlq"]["max_message_bytes"]) == ("source", "source + 65536")
