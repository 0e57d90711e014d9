import hashlib
import inspect
import json
import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest

from stream.config import (
    BatchSettings,
    BudgetSettings,
    CoreSettings,
    DecisionSettings,
    EmbedderSettings,
    HttpSettings,
    KafkaSettings,
    LearningSettings,
    RoutingSettings,
    Settings,
    TopicsSettings,
    TransformerSettings,
)
from stream.errors import StateError, UsageError


def test_a_broken_rule_names_key_rule_value_and_remedy() -> None:
    with pytest.raises(UsageError) as caught:
        BatchSettings(records_max=0)
    assert str(caught.value) == (
        "batch.records_max must be a whole number of at least 1 and at most 10000; got 0. "
        "Set it in tidegate.toml or TIDEGATE_BATCH__RECORDS_MAX."
    )


@pytest.mark.parametrize(
    ("build", "rule"),
    [
        (lambda: KafkaSettings(bootstrap_servers=""), "kafka.bootstrap_servers must be text that is not empty"),
        (lambda: KafkaSettings(group_protocol="eager"), "must be one of classic, consumer"),
        (lambda: KafkaSettings(properties={"acks": "1"}), "kafka.properties must leave acks to Tidegate"),
        (lambda: TopicsSettings(prefix="a/b"), "topics.prefix must be letters, digits"),
        (lambda: TopicsSettings(partitions=0), "topics.partitions must be a whole number of at least 1"),
        (lambda: CoreSettings(lateness_ms=True), "core.lateness_ms must be a whole number"),
        (
            lambda: LearningSettings(quarantine_days=float("nan")),
            "learning.quarantine_days must be a number at least 0",
        ),
        (lambda: DecisionSettings(session_fpr=0.0), "decision.session_fpr must be a number above 0 and at most 1"),
        (lambda: DecisionSettings(mode="both"), "decision.mode must be one of fpr, budget"),
        (
            lambda: BudgetSettings(critical_reserve=1.5),
            "budget.critical_reserve must be a number at least 0 and at most 1",
        ),
        (lambda: EmbedderSettings(device="tpu"), "embedder.device must be auto, cpu, cuda or cuda:N"),
        (lambda: TransformerSettings(device="tpu"), "transformer.device must be auto, cpu, cuda or cuda:N"),
        (lambda: TransformerSettings(mode="some"), "transformer.mode must be"),
        (lambda: HttpSettings(listen="localhost"), "http.listen must be host:port"),
        (lambda: HttpSettings(listen="localhost:70000"), "http.listen must be host:port"),
        (lambda: LearningSettings(forget_tenants_days=0.5), "learning.forget_tenants_days must be a number at least 1"),
        (lambda: LearningSettings(forget_keys_days=0.0), "learning.forget_keys_days must be a number at least 1"),
        (lambda: RoutingSettings(shards={"a": 0}), "routing.shards.a must be a whole number of at least 1"),
    ],
)
def test_every_section_refuses_what_breaks_its_rule(build: Callable[[], object], rule: str) -> None:
    with pytest.raises(UsageError) as caught:
        build()
    assert rule in str(caught.value)
    assert caught.value.exit_code == 2


def test_defaults_keep_every_rule_and_every_key_is_documented() -> None:
    Settings()
    for section in fields(Settings()):
        if section.name == "origins":
            continue
        for key in fields(getattr(Settings(), section.name)):
            source = inspect.getsource(type(getattr(Settings(), section.name)))
            after = source[source.index(f"\n    {key.name}: ") :].split("\n")[2]
            assert after.strip().startswith('"""'), f"{section.name}.{key.name} has no docstring"


def test_what_results_depend_on_is_named_and_hashed() -> None:
    settings = Settings()
    values = settings.determinism()
    assert set(values) == {
        *("core", "decision", "budget", "learning", "routing", "findings", "dedup"),
        *("topics", "transformer"),
    }
    assert values["topics"] == {"partitions": 8}
    assert values["transformer"] == {"mode": "off", "gate": 2.0}
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    assert settings.config_hash == hashlib.sha256(text.encode()).hexdigest()


def test_batching_and_addresses_do_not_change_the_hash_but_decisions_do() -> None:
    settings = Settings()
    other = replace(settings, batch=BatchSettings(records_max=7), kafka=KafkaSettings("elsewhere:9092"))
    assert other.config_hash == settings.config_hash
    assert replace(settings, decision=DecisionSettings(session_fpr=0.02)).config_hash != settings.config_hash
    assert replace(settings, topics=TopicsSettings(partitions=4)).config_hash != settings.config_hash
    assert replace(settings, topics=TopicsSettings(prefix="x.")).config_hash == settings.config_hash


def test_a_journal_brings_its_values_back_through_json() -> None:
    then = Settings(
        routing=RoutingSettings(shards={"big": 4}),
        topics=TopicsSettings(partitions=3),
        core=CoreSettings(lateness_ms=5),
    )
    now = Settings(kafka=KafkaSettings("b:1"), topics=TopicsSettings(prefix="eu."))
    back = now.with_determinism(json.loads(json.dumps(then.determinism())))
    assert back.determinism() == then.determinism()
    assert back.config_hash == then.config_hash
    assert back.topics.prefix == "eu."
    assert back.kafka.bootstrap_servers == "b:1"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"moon": {}}, "section 'moon'"),
        ({"core": {"gravity": 1}}, "key core.gravity"),
        ({"core": "heavy"}, "section 'core' that is no table"),
        ({"core": {"lateness_ms": "soon"}}, "core.lateness_ms must be a whole number"),
    ],
)
def test_a_journal_of_another_version_is_refused_with_exit_code_5(values: dict[str, Any], said: str) -> None:
    with pytest.raises(StateError) as caught:
        Settings().with_determinism(values)
    assert said in str(caught.value)
    assert caught.value.exit_code == 5


def test_a_key_that_an_older_journal_does_not_know_has_its_default() -> None:
    settings = Settings(core=CoreSettings(lateness_ms=1), transformer=TransformerSettings("all", path="w"))
    assert settings.with_determinism({}).core == CoreSettings()
    assert settings.with_determinism({}).transformer == TransformerSettings(path="w")


def test_what_the_transformer_sees_is_journalled_and_where_it_lies_is_not() -> None:
    then = Settings(transformer=TransformerSettings("gated", 1.5, "/old/weights", "cuda:1"))
    here = Settings(transformer=TransformerSettings(path="/here", device="cpu"))
    assert here.with_determinism(then.determinism()).transformer == TransformerSettings("gated", 1.5, "/here", "cpu")
    assert replace(then, transformer=TransformerSettings("gated", 1.5)).config_hash == then.config_hash
    assert [TransformerSettings(mode, 1.5).threshold for mode in ("off", "gated", "all")] == [None, 1.5, -math.inf]


def test_an_output_prefix_takes_the_place_of_the_prefix_for_outputs_only() -> None:
    topics = TopicsSettings(prefix="eu.", output_prefix="green.")
    assert topics.events == "eu.genai.gateway.events.v1"
    assert topics.controls == "eu.genai.anomaly.controls.v1"
    assert topics.releases == "eu.genai.model.releases.v1"
    outputs = [topics.scores, topics.findings, topics.state, topics.journal]
    assert outputs == [f"green.genai.anomaly.{name}.v1" for name in ("scores", "findings", "state", "journal")]
    assert TopicsSettings(prefix="eu.").scores == "eu.genai.anomaly.scores.v1"


def test_a_mode_of_decision_is_one_of_two() -> None:
    assert DecisionSettings(mode="budget").mode == "budget"
    with pytest.raises(UsageError, match=r"decision\.mode must be one of fpr, budget; got 'both'"):
        DecisionSettings(mode="both")


def test_exceptions_name_tenants_and_say_why() -> None:
    assert DecisionSettings(exceptions={"pentest": "their job"}).exceptions == {"pentest": "their job"}
    exceptions: Any = {"pentest": 3}
    with pytest.raises(UsageError, match=r"decision\.exceptions must be a table of text by name"):
        DecisionSettings(exceptions=exceptions)
