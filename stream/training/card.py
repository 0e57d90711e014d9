"""A release's model card: what it is, what made it, what was measured, and how far to trust it. Markdown, no clock.

The card lies in the release and its hash in the manifest, so it cannot name the release; it says nothing that the same
input would not say again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from schemas.manifest import TrainingInput

_RANGES_MAX = 40
_NAMES_MAX = 20
_LIMITS = (
    "A p-value says how rare an event is among the sessions that calibrated the release, not that it is an attack.",
    "`known_attack` recognises what is worded like attacks that were written for it or labelled, and little else.",
    "An order in a tool's result counts less where the user asked for what texts say: fewer are found there.",
    "What in tools' results sounds like a user is read by a tagger that has read English more than other languages.",
    "Until a tenant has had `learning.grace_sessions` sessions only signals on the population's scale decide.",
    "In these, what they come to must be three times as rare where the tenant was not trained on.",
    "Sizes of calls in sessions unlike a tenant's own are strange only as far as any tenant's would be.",
    "Content is redacted before it is learned: what redaction replaces cannot be told apart.",
    "Whoever can label can teach: labels were audited before they taught, and the gate compares what came of them.",
)
_WHAT = {
    "held_out_flagged_at_0.01": "share of held-out sessions flagged at a nominal 1 %",
    "held_out_flagged_at_0.05": "share of held-out sessions flagged at a nominal 5 %",
    "suspect_sessions": "sessions that nobody judged, left out as likest to labelled attacks",
    "tenants_adapted": "tenants with an adapter of their own",
}


@dataclass(frozen=True, slots=True)
class Card:
    """What a card tells."""

    data: TrainingInput
    metrics: Mapping[str, float]
    parent: str | None
    space_id: str
    feature_schema: str
    state_schema: str
    seed: int
    reasons: Sequence[str] = ()
    """Why it was asked for."""
    decision: str = ""
    """The gate's, in a sentence."""
    slices: Sequence[Mapping[str, str | float]] = ()
    """The gate's figures by slice, each with the same columns."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Sessions and labels of the data set by what became of them."""

    def text(self) -> str:
        """The card as Markdown."""
        return "\n".join([*self._head(), *self._data(), *self._labels(), *self._measured(), *self._limits()]) + "\n"

    def _head(self) -> list[str]:
        follows = f"It follows `{self.parent}`." if self.parent else "It follows no other release."
        why = [f"- {reason}" for reason in self.reasons]
        return [
            "# Model card of a Tidegate release",
            "",
            "Finds what is not normal in the traffic of an LLM gateway: a sequence autoencoder with an adapter a",
            "tenant, text models, volume baselines, and the calibration that makes p-values of what they say. For",
            f"`tidegate score` with the embedder `{self.space_id}`. {follows}",
            "",
            f"Features `{self.feature_schema}`, state `{self.state_schema}`, seed {self.seed}.",
            *(["", "Asked for because:", "", *why] if why else []),
            "",
        ]

    def _data(self) -> list[str]:
        data = self.data
        size = f"{data.events:,} events of {data.sessions:,} sessions and {data.tenants:,} tenants"
        days = f"from {_day(data.first_event_ms)} to {_day(data.last_event_ms)}"
        lines = ["## Data", "", f"{size}, {days}; events' sha256 `{data.events_sha256}`.", ""]
        lines += [f"- file `{file.name}`, {file.bytes:,} bytes, sha256 `{file.sha256}`" for file in data.files]
        named = [f"- `{r.topic}[{r.partition}]` {r.from_offset} to {r.to_offset}" for r in data.ranges]
        lines += [*named[:_RANGES_MAX], *([f"- {len(named) - _RANGES_MAX} more"] if len(named) > _RANGES_MAX else [])]
        lines += [
            "",
            *_table(("what", "count"), ((f"{k.replace('_', ' ')}", f"{v:,}") for k, v in self.counts.items())),
        ]
        lines += [f"{data.left_out:,} sessions left out, {data.dead_letters:,} records unreadable.", ""]
        return lines

    def _labels(self) -> list[str]:
        labels = self.data.labels
        if labels is None:
            return ["## Labels", "", "None: no analyst's verdict taught it anything.", ""]
        said = f"{labels.attacks:,} of attacks and {labels.benign:,} of benign findings, by {_named(labels.analysts)}"
        return ["## Labels", "", f"{said}; {labels.left_out:,} left out. sha256 `{labels.labels_sha256}`.", ""]

    def _measured(self) -> list[str]:
        rows = ((f"`{name}`", f"{value:.6g}", _WHAT.get(name, "")) for name, value in sorted(self.metrics.items()))
        lines = ["## Measured", "", *_table(("metric", "value", "what"), rows)]
        if (teacher := self.data.teacher) is not None:
            told = ((f"`{name}`", f"{value:.6g}") for name, value in sorted(teacher.metrics.items()))
            tuned = f"fine-tuned on {teacher.examples:,} segments (sha256 `{teacher.sha256}`)"
            lines += [f"The classifier of known attacks was distilled from `{teacher.base}`, {tuned}.", ""]
            lines += _table(("metric", "value"), told)
        if self.decision:
            lines += ["## Gate", "", self.decision, ""]
        if self.slices:
            columns = tuple(self.slices[0])
            lines += _table(columns, (tuple(_cell(row[name]) for name in columns) for row in self.slices))
        return lines

    def _limits(self) -> list[str]:
        return ["## Limits", "", *(f"- {limit}" for limit in _LIMITS)]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table, and the line behind it; nothing where there are no rows."""
    lines = [f"| {' | '.join(_safe(cell) for cell in row)} |" for row in rows]
    if not lines:
        return []
    return [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns), *lines, ""]


def _cell(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def _safe(cell: str) -> str:
    """Text that stays in its cell, whatever is in it."""
    return " ".join(cell.split()).replace("|", "\\|")


def _named(names: Sequence[str]) -> str:
    """Some names, and how many there are besides.

    >>> _named(["ada", "bob"])
    'ada, bob'
    """
    shown = ", ".join(_safe(name) for name in names[:_NAMES_MAX])
    more = len(names) - _NAMES_MAX
    return f"{shown} and {more} more" if more > 0 else shown or "nobody"


def _day(ms: int) -> str:
    """A day, in UTC.

    >>> _day(1_793_491_200_000)
    '2026-11-01'
    """
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")
