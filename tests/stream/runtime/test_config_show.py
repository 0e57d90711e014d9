import argparse
import json
import tomllib

import pytest

from stream.runtime.config_show import run
from stream.runtime.settings import read_settings, rows

GIVEN = {
    "TIDEGATE_KAFKA__PROPERTIES__SASL_PASSWORD": "hunter2",
    "TIDEGATE_KAFKA__PROPERTIES__SECURITY_PROTOCOL": "SASL_SSL",
    "TIDEGATE_ROUTING__SHARDS": '{"team a": 2}',
    "TIDEGATE_RELEASE__TRUSTED_KEYS": "k1,k2",
}


def test_it_shows_toml_that_reads_back_with_origins_in_comments(capsys: pytest.CaptureFixture[str]) -> None:
    settings = read_settings({"--topic-prefix": "eu."}, GIVEN)
    assert run(settings, argparse.Namespace(json=False)) == 0
    text = capsys.readouterr().out
    shown = tomllib.loads(text)
    assert shown["topics"] == {"prefix": "eu.", "output_prefix": "", "partitions": 8}
    assert shown["kafka"]["properties"] == {"sasl.password": "********", "security.protocol": "SASL_SSL"}
    assert shown["routing"] == {"shards": {"team a": 2}}
    assert shown["release"]["trusted_keys"] == ["k1", "k2"]
    assert "hunter2" not in text
    line = next(line for line in text.splitlines() if line.startswith("topics.prefix"))
    assert line.endswith("# flag --topic-prefix")


def test_json_holds_value_and_origin_of_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    settings = read_settings({}, GIVEN)
    assert run(settings, argparse.Namespace(json=True)) == 0
    text = capsys.readouterr().out
    shown = json.loads(text)
    assert set(shown) == {key for key, _, _ in rows(settings)}
    assert shown["batch.wait_ms"] == {"value": 50, "origin": "default"}
    assert shown["routing.shards"]["origin"] == "environment TIDEGATE_ROUTING__SHARDS"
    assert "hunter2" not in text
