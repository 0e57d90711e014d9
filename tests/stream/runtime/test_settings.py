import argparse
from pathlib import Path

import pytest

from stream.config import Settings
from stream.errors import UsageError
from stream.runtime.settings import SECTIONS, from_arguments, is_secret, read_settings, rows


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.fixture(autouse=True)
def no_file_of_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_without_anything_given_all_values_are_defaults() -> None:
    settings = read_settings({}, {})
    assert settings == Settings()
    assert {origin for _, _, origin in rows(settings)} == {"default"}


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = write(
        tmp_path / "given.toml", '[kafka]\nbootstrap_servers = "file:1"\n[topics]\nprefix = "file."\npartitions = 3\n'
    )
    environment = {"TIDEGATE_KAFKA__BOOTSTRAP_SERVERS": "env:1", "TIDEGATE_TOPICS__PREFIX": "env."}
    settings = read_settings({"--topic-prefix": "flag."}, environment, file)
    assert (settings.topics.prefix, settings.kafka.bootstrap_servers, settings.topics.partitions) == (
        "flag.",
        "env:1",
        3,
    )
    assert settings.batch.records_max == 2000
    assert dict(settings.origins) == {
        "topics.prefix": "flag --topic-prefix",
        "kafka.bootstrap_servers": "environment TIDEGATE_KAFKA__BOOTSTRAP_SERVERS",
        "topics.partitions": str(file),
    }


def test_tidegate_toml_of_the_working_directory_is_read_unless_another_is_named(tmp_path: Path) -> None:
    write(tmp_path / "tidegate.toml", "[batch]\nwait_ms = 7\n")
    assert read_settings({}, {}).batch.wait_ms == 7
    other = write(tmp_path / "other.toml", "[batch]\nwait_ms = 8\n")
    assert read_settings({}, {}, other).batch.wait_ms == 8


def test_the_usual_variable_names_the_broker_and_the_full_one_wins() -> None:
    alias = {"KAFKA_BOOTSTRAP_SERVERS": "usual:1"}
    settings = read_settings({}, alias)
    assert settings.kafka.bootstrap_servers == "usual:1"
    assert settings.origins["kafka.bootstrap_servers"] == "environment KAFKA_BOOTSTRAP_SERVERS"
    both = read_settings({}, alias | {"TIDEGATE_KAFKA__BOOTSTRAP_SERVERS": "full:1"})
    assert both.kafka.bootstrap_servers == "full:1"
    assert read_settings({}, {"KAFKA_BOOTSTRAP_SERVERS": ""}).kafka.bootstrap_servers == "localhost:9092"


def test_text_becomes_the_type_of_its_key() -> None:
    settings = read_settings(
        {},
        {
            "TIDEGATE_BATCH__RECORDS_MAX": "7",
            "TIDEGATE_DECISION__SESSION_FPR": "0.05",
            "TIDEGATE_RELEASE__TRUSTED_KEYS": "one, two",
            "TIDEGATE_ROUTING__SHARDS": '{"big": 4}',
            "TIDEGATE_INGEST__TENANT_DEFAULT": "",
        },
    )
    assert settings.batch.records_max == 7
    assert settings.decision.session_fpr == 0.05
    assert settings.release.trusted_keys == ("one", "two")
    assert settings.routing.shards == {"big": 4}
    assert settings.ingest.tenant_default == ""


def test_a_whole_number_in_the_file_does_for_a_fraction(tmp_path: Path) -> None:
    text = '[decision]\nsession_fpr = 1\n[release]\ntrusted_keys = ["k"]\n[routing.shards]\nbig = 2\n'
    settings = read_settings({}, {}, write(tmp_path / "a.toml", text))
    assert settings.decision.session_fpr == 1.0
    assert isinstance(settings.decision.session_fpr, float)
    assert settings.release.trusted_keys == ("k",)
    assert settings.routing.shards == {"big": 2}


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (
            {"TIDEGATE_BATCH__RECORD_MAX": "1"},
            "there is no key TIDEGATE_BATCH__RECORD_MAX; did you mean TIDEGATE_BATCH__RECORDS_MAX?",
        ),
        ({"TIDEGATE_BACH__WAIT_MS": "1"}, "did you mean TIDEGATE_BATCH__WAIT_MS?"),
        ({"TIDEGATE_XX__YY": "1"}, "'tidegate config show' lists every key"),
        (
            {"TIDEGATE_BATCH__WAIT_MS": "soon"},
            "got 'soon'. Set it in tidegate.toml or TIDEGATE_BATCH__WAIT_MS. It came from environment TIDEGATE_B",
        ),
        (
            {"TIDEGATE_KAFKA__PROPERTIES": '{"sasl.password": "hunter2"'},
            "kafka.properties must be a table of text by name; got a text that is none.",
        ),
        ({"TIDEGATE_ROUTING__SHARDS": "big=4"}, "routing.shards must be a table of whole numbers by name; got 'big=4'"),
        ({"TIDEGATE_KAFKA__PROPERTIES__ACKS": "1"}, "kafka.properties must leave acks to Tidegate"),
        (
            {"TIDEGATE_KAFKA__PROPERTIES__SASL_PASSWORD_FILE": "missing"},
            "SASL_PASSWORD_FILE: the file missing of kafka.properties.sasl.password cannot be read",
        ),
    ],
)
def test_a_wrong_variable_is_named_with_its_remedy(environment: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_settings({}, environment)
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[batch]\nrecord_max = 1\n", "there is no key [batch] record_max; did you mean [batch] records_max?"),
        ("records_max = 1\n", "there is no key records_max"),
        ("[batch\n", "not TOML"),
        (f"[batch]\nrecords_max = {'1' * 5_000}\n", "not TOML"),
        (f"[batch]\nrecords_max = {'[' * 5_000}\n", "not TOML"),
        ("[batch]\nrecords_max = '1'\n", "batch.records_max must be a whole number"),
        ("[kafka.properties]\n'ssl.ca.location' = [1]\n", "kafka.properties.ssl.ca.location must be text, a number"),
        (
            "[kafka.properties]\n'sasl.password' = 'hunter2'\n",
            "must not lie in a configuration file. Set TIDEGATE_KAFKA__PROPERTIES__SASL_PASSWORD, or",
        ),
    ],
)
def test_a_wrong_file_is_named_with_its_remedy(tmp_path: Path, text: str, said: str) -> None:
    file = write(tmp_path / "wrong.toml", text)
    with pytest.raises(UsageError) as caught:
        read_settings({}, {}, file)
    assert said in str(caught.value)
    assert str(file) in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_missing_file_is_an_error_only_when_it_was_named(tmp_path: Path) -> None:
    read_settings({}, {})
    with pytest.raises(UsageError, match=r"--config .*none\.toml: the file cannot be read"):
        read_settings({}, {}, tmp_path / "none.toml")


def test_librdkafka_keys_add_up_over_file_and_environment(tmp_path: Path) -> None:
    text = "[kafka.properties]\n'security.protocol' = 'SASL_SSL'\n'enable.ssl.certificate.verification' = false\n"
    settings = read_settings(
        {},
        {
            "TIDEGATE_KAFKA__PROPERTIES__SASL_PASSWORD": "hunter2",
            "TIDEGATE_KAFKA__PROPERTIES__SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        },
        write(tmp_path / "a.toml", text),
    )
    assert settings.kafka.properties == {
        "security.protocol": "SASL_PLAINTEXT",
        "enable.ssl.certificate.verification": "false",
        "sasl.password": "hunter2",
    }


@pytest.mark.parametrize("where", ["environment", "file"])
def test_a_secret_may_lie_in_a_file_of_its_own(tmp_path: Path, where: str) -> None:
    secret = write(tmp_path / "secret", "hunter2\n")
    if where == "environment":
        settings = read_settings({}, {"TIDEGATE_KAFKA__PROPERTIES__SASL_PASSWORD_FILE": str(secret)})
    else:
        text = f"[kafka.properties]\n'sasl.password_file' = '{secret}'\n"
        settings = read_settings({}, {}, write(tmp_path / "a.toml", text))
    assert settings.kafka.properties == {"sasl.password": "hunter2"}
    assert "secret)" in settings.origins["kafka.properties.sasl.password"]


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("sasl.password", True),
        ("ssl.key.password", True),
        ("ssl.keystore.password", True),
        ("ssl.key.pem", True),
        ("sasl.oauthbearer.client.secret", True),
        ("sasl.oauthbearer.assertion.private.key.passphrase", True),
        ("sasl.username", False),
        ("ssl.certificate.pem", False),
        ("sasl.oauthbearer.assertion.private.key.file", False),
    ],
)
def test_what_is_secret_among_librdkafkas_keys(name: str, secret: bool) -> None:
    assert is_secret(name) is secret


def test_secrets_are_masked_wherever_settings_are_shown() -> None:
    settings = read_settings({}, {"TIDEGATE_KAFKA__PROPERTIES__SSL_KEY_PASSWORD": "hunter2"})
    shown = {key: (value, origin) for key, value, origin in rows(settings)}
    assert shown["kafka.properties.ssl.key.password"] == (
        "********",
        "environment TIDEGATE_KAFKA__PROPERTIES__SSL_KEY_PASSWORD",
    )


def test_settings_that_somebody_prints_tell_no_password() -> None:
    settings = read_settings({}, {"TIDEGATE_KAFKA__PROPERTIES__SASL_PASSWORD": "hunter2"})
    assert "hunter2" not in repr(settings)


def test_unquoted_librdkafka_keys_in_the_file_are_meant_as_they_read(tmp_path: Path) -> None:
    text = "[kafka.properties]\nssl.ca.location = '/ca'\nssl.ca.pem = 'p'\n"
    settings = read_settings({}, {}, write(tmp_path / "a.toml", text))
    assert settings.kafka.properties == {"ssl.ca.location": "/ca", "ssl.ca.pem": "p"}
    with pytest.raises(UsageError, match=r"sasl\.password is a secret"):
        read_settings({}, {}, write(tmp_path / "b.toml", "[kafka.properties]\nsasl.password = 'hunter2'\n"))


def test_other_variables_are_left_alone() -> None:
    assert read_settings({}, {"TIDEGATE_TEST_KAFKA": "x", "OTHER__KEY": "y", "TIDEGATE_PORT": "1"}) == Settings()
    assert read_settings({}, {"TIDEGATE_LITELLM__TOPIC": "calls"}) == Settings()


def test_every_named_key_of_the_interface_exists() -> None:
    named = """
        kafka.bootstrap_servers kafka.session_timeout_ms topics.prefix topics.partitions core.lateness_ms
        dedup.events_max learning.grace_sessions findings.quiet_ms ingest.depth_max ingest.tenant_field
        ingest.tenant_default release.trusted_keys release.signing_key_file decision.mode decision.session_fpr
        budget.findings_per_day budget.critical_reserve learning.quarantine_days embedder.name embedder.path
        embedder.device batch.records_max batch.wait_ms http.listen redaction.policy dlq.payload shutdown.deadline_ms
    """
    keys = {f"{section}.{key}" for section, names in SECTIONS.items() for key in names}
    assert set(named.split()) <= keys


def test_a_command_line_brings_its_flags_and_this_processs_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_BATCH__WAIT_MS", "9")
    arguments = argparse.Namespace(config=None, bootstrap_servers="flag:1", topic_prefix=None)
    settings = from_arguments(arguments)
    assert (settings.batch.wait_ms, settings.kafka.bootstrap_servers) == (9, "flag:1")
    assert settings.origins["kafka.bootstrap_servers"] == "flag --bootstrap-servers"
