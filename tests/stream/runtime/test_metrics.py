"""The names that dashboards and alerts rely on."""

from prometheus_client import generate_latest

from stream.runtime.metrics import HOLDERS, Metrics

NAMES = """tidegate_records_total{topic,result} tidegate_lag_records{topic,partition} tidegate_stage_seconds{stage}
tidegate_latency_seconds{origin} tidegate_transactions_total{result} tidegate_transaction_seconds{phase}
tidegate_restore_seconds tidegate_state_bytes tidegate_embedding_cache_total{result} tidegate_decisions_total{decision}
tidegate_findings_total{activity,severity} tidegate_dead_letters_total{reason} tidegate_release_info{release,space_id}
tidegate_budget_used_ratio"""
"""Names that outside tools rely on."""
OURS = {
    "tidegate_kafka_retries_total{client,reason}",
    "tidegate_lost_records_total{topic}",
    "tidegate_skipped_total{what}",
    "tidegate_flagged_events_total{flag}",
    "tidegate_rare_events_total{signal}",
    "tidegate_ready",
    "tidegate_release_verified",
    "tidegate_release_refused_total{reason}",
    "tidegate_controls_ignored_total",
    "tidegate_canary_age_seconds",
    "tidegate_canary_latency_seconds",
    "tidegate_canary_attacks_total{result}",
    "tidegate_feedback_records_total{topic,result}",
    "tidegate_feedback_labels_total{teaches}",
    "tidegate_feedback_controls_total{effect}",
    "tidegate_feedback_retrain_requests_total{cause}",
    "tidegate_feedback_dead_letters_total{reason}",
    "tidegate_feedback_waiting_verdicts",
    "tidegate_feedback_rows",
    "tidegate_feedback_disputed_findings",
    "tidegate_feedback_latency_seconds",
    "tidegate_feedback_recovery_seconds",
    "tidegate_feedback_lag_records{topic,partition}",
    "tidegate_feedback_ready",
    "tidegate_trainer_jobs_total{result}",
    "tidegate_trainer_job_running",
    "tidegate_trainer_job_progress_ratio",
    "tidegate_trainer_job_seconds",
    "tidegate_trainer_stage_seconds{stage}",
    "tidegate_trainer_retries_total{why}",
    "tidegate_trainer_untracked_total",
}


def test_every_metric_has_its_name_its_labels_and_a_sentence_and_no_tenant() -> None:
    declared = {}
    for name, metric in [item for holder in HOLDERS for item in vars(holder()).items()]:
        if name == "registry":
            continue
        family = metric.describe()[0]
        exported = family.name + ("_total" if family.type == "counter" else "")
        labels = "{" + ",".join(metric._labelnames) + "}" if metric._labelnames else ""
        declared[exported + labels] = family.documentation
    assert set(declared) == {*NAMES.split(), *OURS}
    assert all(sentence.endswith(".") for sentence in declared.values())
    assert not any("tenant" in name for name in declared)


def test_two_services_of_one_process_do_not_meet() -> None:
    first, second = Metrics(), Metrics()
    first.state_bytes.set(7)
    assert b"tidegate_state_bytes 7.0" in generate_latest(first.registry)
    assert b"tidegate_state_bytes 0.0" in generate_latest(second.registry)


def test_what_alerts_watch_for_starts_at_zero_so_that_the_first_one_is_an_increase() -> None:
    exported = generate_latest(Metrics().registry)
    assert b'tidegate_transactions_total{result="aborted"} 0.0' in exported
    assert b'tidegate_dead_letters_total{reason="oversized"} 0.0' in exported
    assert b'tidegate_skipped_total{what="other_span"} 0.0' in exported
    assert b'tidegate_decisions_total{decision="over_budget"} 0.0' in exported
