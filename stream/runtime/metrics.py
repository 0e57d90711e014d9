"""Every metric that is exported, declared once; `docs/metrics.md` is made of it.

None carries a tenant as a label: a million tenants would be a million time series.
"""

from __future__ import annotations

from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from schemas.dead_letter import REASONS
from schemas.gateways.call import Other
from stream.runtime.release.loader import Reason

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LATENCY_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
_RESTORE_SECONDS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
_CANARY_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
DECISIONS = ("none", "finding", "suppressed", "over_budget", "warmup", "duplicate")
"""What a scored event can come to."""


class Metrics:
    """The metrics of one process of `ingest` or `score`.

    Parameters
    ----------
    registry
        Where they are registered; a fresh one by default, so that two services of one test do not meet.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        self.records = Counter(
            "tidegate_records",
            "Input records whose outcome was committed; result is ok or dead_letter.",
            ("topic", "result"),
            registry=self.registry,
        )
        self.lag = Gauge(
            "tidegate_lag_records",
            "Offsets between what is committed and the end of the partition, transaction markers included.",
            ("topic", "partition"),
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "tidegate_stage_seconds",
            "Seconds a micro-batch spent in a stage: poll, step, queue (waiting for the committer), commit.",
            ("stage",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.latency_seconds = Histogram(
            "tidegate_latency_seconds",
            "Seconds from a micro-batch's oldest record's Kafka timestamp to its commit; origin is the input topic.",
            ("origin",),
            buckets=_LATENCY_SECONDS,
            registry=self.registry,
        )
        self.transactions = Counter(
            "tidegate_transactions",
            "Transactions by how they ended: committed, aborted, unknown (timed out, the producer was replaced).",
            ("result",),
            registry=self.registry,
        )
        self.transaction_seconds = Histogram(
            "tidegate_transaction_seconds",
            "Seconds in each phase of a transaction: produce, offsets, commit, abort.",
            ("phase",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.kafka_retries = Counter(
            "tidegate_kafka_retries",
            "Kafka's faults that were met by trying again; client is consumer, producer or admin, reason the group of "
            "docs/kafka-errors.md. A lost connection is told by every client and every attempt.",
            ("client", "reason"),
            registry=self.registry,
        )
        self.lost_records = Counter(
            "tidegate_lost_records",
            "Offsets that retention removed before they were read and kafka.lost_records_max let pass.",
            ("topic",),
            registry=self.registry,
        )
        self.restore_seconds = Histogram(
            "tidegate_restore_seconds",
            "Seconds to bring a partition's state back from the state topic.",
            buckets=_RESTORE_SECONDS,
            registry=self.registry,
        )
        self.state_bytes = Gauge(
            "tidegate_state_bytes",
            "Bytes that the state of the assigned partitions takes in memory.",
            registry=self.registry,
        )
        self.embedding_cache = Counter(
            "tidegate_embedding_cache",
            "Segments looked up in the embedding cache; result is hit or miss.",
            ("result",),
            registry=self.registry,
        )
        self.decisions = Counter(
            "tidegate_decisions",
            "Scored events by decision: none, finding, suppressed, over_budget, warmup, duplicate.",
            ("decision",),
            registry=self.registry,
        )
        self.flagged_events = Counter(
            "tidegate_flagged_events",
            "Odd events: clamped (dated ahead), late, no_content, conflicting_ids (an id with new content), "
            "unfamiliar (of a session unlike its tenant's).",
            ("flag",),
            registry=self.registry,
        )
        self.findings = Counter(
            "tidegate_findings",
            "Finding records by OCSF activity (create, update, close) and severity_id.",
            ("activity", "severity"),
            registry=self.registry,
        )
        self.dead_letters = Counter(
            "tidegate_dead_letters",
            "Records written to a dead letter topic, by reason.",
            ("reason",),
            registry=self.registry,
        )
        self.skipped = Counter(
            "tidegate_skipped",
            "What gateways log beside calls of a model, no event and no dead letter; what is other_span, outer_span "
            "(an agent's or a tool's), other_request, unanswered_request.",
            ("what",),
            registry=self.registry,
        )
        self.rare_events = Counter(
            "tidegate_rare_events",
            "Scored events whose p-value of the signal is at most 0.01; a share that grows in all tenants is drift.",
            ("signal",),
            registry=self.registry,
        )
        self.ready = Gauge(
            "tidegate_ready",
            "1 while /readyz answers 200: assigned, restored and caught up; else 0.",
            registry=self.registry,
        )
        self.release_verified = Gauge(
            "tidegate_release_verified",
            "1 when release.trusted_keys vouch for the release in service, 0 when nobody does.",
            registry=self.registry,
        )
        self.release_refused = Counter(
            "tidegate_release_refused",
            "Controls that asked for a release and were refused, the one in service going on; reason is missing, "
            "unsigned, mismatch, damaged, incompatible, unreadable, failed.",
            ("reason",),
            registry=self.registry,
        )
        self.controls_ignored = Counter(
            "tidegate_controls_ignored",
            "Controls, counted in each partition, that took no effect: malformed, or of a release that was refused.",
            registry=self.registry,
        )
        self.release_info = Gauge(
            "tidegate_release_info",
            "1 for the release in service, 0 for one that it replaced.",
            ("release", "space_id"),
            registry=self.registry,
        )
        self.budget_used_ratio = Gauge(
            "tidegate_budget_used_ratio",
            "Share of what the alert budget's allowances can hold that is spent, over this process's partitions: of a "
            "day, or of one finding where a day's share is less; 0 when decision.mode is fpr.",
            registry=self.registry,
        )
        self._start_at_zero()

    def _start_at_zero(self) -> None:
        """A series that begins with its first event hides that event from `increase`, and so from alerts."""
        for result in ("committed", "aborted", "unknown"):
            self.transactions.labels(result)
        for client in ("consumer", "producer", "admin"):
            self.kafka_retries.labels(client, "unreachable")
        for decision in DECISIONS:
            self.decisions.labels(decision)
        for reason in REASONS:
            self.dead_letters.labels(reason)
        for what in get_args(Other):
            self.skipped.labels(what)
        for reason in get_args(Reason):
            self.release_refused.labels(reason)
        for result in ("hit", "miss"):
            self.embedding_cache.labels(result)


class CanaryMetrics:
    """The metrics of `tidegate canary`.

    Parameters
    ----------
    registry
        As of `Metrics`.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        self.age_seconds = Gauge(
            "tidegate_canary_age_seconds",
            "Seconds since the last finding about a canary was seen, or since the canary started.",
            registry=self.registry,
        )
        self.latency_seconds = Histogram(
            "tidegate_canary_latency_seconds",
            "Seconds from sending a canary's attack to seeing its finding, read_committed.",
            buckets=_CANARY_SECONDS,
            registry=self.registry,
        )
        self.attacks = Counter(
            "tidegate_canary_attacks",
            "Canaries by result: found, or missed (no finding within --timeout).",
            ("result",),
            registry=self.registry,
        )


class TrainerMetrics:
    """The metrics of `tidegate trainer`.

    Parameters
    ----------
    registry
        As of `Metrics`.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        self.jobs = Counter(
            "tidegate_trainer_jobs",
            "Retrain requests by what came of them: promoted, waiting (passed the gate), refused (by the gate), "
            "failed, skipped (done before), undecodable.",
            ("result",),
            registry=self.registry,
        )
        self.job_running = Gauge(
            "tidegate_trainer_job_running",
            "1 while a job is worked on, else 0.",
            registry=self.registry,
        )
        self.job_progress = Gauge(
            "tidegate_trainer_job_progress_ratio",
            "Stages of the job under way that are done, as a share; 0 without a job.",
            registry=self.registry,
        )
        self.job_seconds = Gauge(
            "tidegate_trainer_job_seconds",
            "Seconds since the job under way was begun by this process; 0 without a job.",
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "tidegate_trainer_stage_seconds",
            "Seconds of a job's stage: plan, read, fit, gate, release, announce, promote, track.",
            ("stage",),
            buckets=_RESTORE_SECONDS,
            registry=self.registry,
        )
        self.retries = Counter(
            "tidegate_trainer_retries",
            "Jobs begun again because their process ended before they were done; why is environment or crash.",
            ("why",),
            registry=self.registry,
        )
        self.untracked = Counter(
            "tidegate_trainer_untracked",
            "Attempts to record a finished job in MLflow that the store did not take.",
            registry=self.registry,
        )
        self.lag = Gauge(
            "tidegate_lag_records",
            "Offsets between what is committed and the end of the partition, transaction markers included.",
            ("topic", "partition"),
            registry=self.registry,
        )
        for result in ("promoted", "waiting", "refused", "failed", "skipped", "undecodable"):
            self.jobs.labels(result)
        for why in ("environment", "crash"):
            self.retries.labels(why)


class FeedbackMetrics:
    """The metrics of `tidegate feedback`.

    Parameters
    ----------
    registry
        As of `Metrics`.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        self.records = Counter(
            "tidegate_feedback_records",
            "Input records whose outcome is in Kafka; result is joined, skipped (nothing to join) or dead_letter; of "
            "those joined, dropped are verdicts of more analysts than count on a finding.",
            ("topic", "result"),
            registry=self.registry,
        )
        self.labels = Counter(
            "tidegate_feedback_labels",
            "Labels written, repeated ones included, by what they teach: attack, benign or nothing.",
            ("teaches",),
            registry=self.registry,
        )
        self.controls = Counter(
            "tidegate_feedback_controls",
            "Effects of verdicts sent to the scorer, by effect: admit, keep_out or none.",
            ("effect",),
            registry=self.registry,
        )
        self.retrain_requests = Counter(
            "tidegate_feedback_retrain_requests",
            "Reasons of the retrain requests published, by cause: labels, drift, precision or age.",
            ("cause",),
            registry=self.registry,
        )
        self.dead_letters = Counter(
            "tidegate_feedback_dead_letters",
            "Verdicts written to the dead letter topic, by reason.",
            ("reason",),
            registry=self.registry,
        )
        self.waiting = Gauge(
            "tidegate_feedback_waiting_verdicts",
            "Verdicts of this process's partitions whose finding has not come.",
            registry=self.registry,
        )
        self.rows = Gauge(
            "tidegate_feedback_rows",
            "Findings in this process's table.",
            registry=self.registry,
        )
        self.disputed = Gauge(
            "tidegate_feedback_disputed_findings",
            "Findings on which analysts disagree; of the process that counts, 0 in others.",
            registry=self.registry,
        )
        self.latency_seconds = Histogram(
            "tidegate_feedback_latency_seconds",
            "Seconds from a verdict's Kafka timestamp to the moment its labels and effects are in Kafka.",
            buckets=_LATENCY_SECONDS,
            registry=self.registry,
        )
        self.recovery_seconds = Histogram(
            "tidegate_feedback_recovery_seconds",
            "Seconds from the process's start until its tables were recovered.",
            buckets=_RESTORE_SECONDS,
            registry=self.registry,
        )
        self.lag = Gauge(
            "tidegate_feedback_lag_records",
            "Offsets between what is committed and the end of the partition, transaction markers included.",
            ("topic", "partition"),
            registry=self.registry,
        )
        self.ready = Gauge(
            "tidegate_feedback_ready",
            "1 while /readyz answers 200: assigned, recovered and not rebalancing; else 0.",
            registry=self.registry,
        )
        self._start_at_zero()

    def _start_at_zero(self) -> None:
        for teaches in ("attack", "benign", "nothing"):
            self.labels.labels(teaches)
        for effect in ("admit", "keep_out", "none"):
            self.controls.labels(effect)
        for cause in ("labels", "drift", "precision", "age"):
            self.retrain_requests.labels(cause)
        for reason in ("undecodable", "schema", "signature", "unknown_analyst"):
            self.dead_letters.labels(reason)


HOLDERS = (Metrics, FeedbackMetrics, TrainerMetrics, CanaryMetrics)
"""Every process's metrics, in the order of an event's way; pages and checks are made of them."""
