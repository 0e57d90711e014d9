import argparse
import json
import tomllib

import pytest

from stream.runtime.config_show import run
from stream.runtime.settings import read_settings, rows, secrets_of

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


def test_passwords_within_addresses_are_masked_and_the_rest_of_them_is_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = read_settings({}, {"TIDEGATE_MLFLOW__TRACKING_URI": "https://ml:hunter2@mlflow:5000/x"})
    assert run(settings, argparse.Namespace(json=False)) == 0
    assert 'tracking_uri = "https://ml:********@mlflow:5000/x"' in capsys.readouterr().out
    assert secrets_of(settings) == ["hunter2"]


def test_a_secret_that_is_misspelled_is_masked_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    settings = read_settings({}, {"TIDEGATE_KAFKA__PROPERTIES__SASL_PASWORD": "hunter2"})
    assert run(settings, argparse.Namespace(json=False)) == 0
    assert "hunter2" not in capsys.readouterr().out


def test_json_holds_value_and_origin_of_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    settings = read_settings({}, GIVEN)
    assert run(settings, argparse.Namespace(json=True)) == 0
    text = capsys.readouterr().out
    shown = json.loads(text)
    assert set(shown) == {key for key, _, _ in rows(settings)}
    assert shown["batch.wait_ms"] == {"value": 20, "origin": "default"}
    assert shown["routing.shards"]["origin"] == "environment TIDEGATE_ROUTING__SHARDS"
    assert "hunter2" not in text
