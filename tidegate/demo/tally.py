"""What a demo found, against what is known about its traffic."""

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from schemas.corpus_records import Truth


@dataclass(slots=True)
class Tally:
    """Findings and scores so far; filled by two threads, read by a third."""

    findings: list[dict[str, Any]] = field(default_factory=list)
    decisions: Counter[str] = field(default_factory=Counter)
    sessions: set[tuple[str, str]] = field(default_factory=set)
    """(tenant, session) with a finding."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def score(self, record: dict[str, Any]) -> None:
        """Count a score record."""
        with self._lock:
            self.decisions[record["decision"]] += 1

    def finding(self, record: dict[str, Any]) -> None:
        """Keep a finding record."""
        with self._lock:
            self.findings.append(record)
            self.sessions.add((record["metadata"]["tenant_uid"], record["unmapped"]["entity"]))

    @property
    def scored(self) -> int:
        """Events that have their score."""
        return self.decisions.total()

    @property
    def created(self) -> int:
        """Findings, whatever the number of their updates."""
        return sum(record["activity_id"] == 1 for record in self.findings)


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of session: how many there were, and how many have a finding."""

    kind: str
    sessions: int
    flagged: int


def rows(truths: dict[tuple[str, str], Truth], flagged: set[tuple[str, str]]) -> tuple[list[Row], list[Row]]:
    """Attack sessions by family, benign sessions by source: how many were flagged.

    A session is one of (tenant, session as the gateway names it); families and sources come in alphabetical order.
    """
    attacks: Counter[str] = Counter()
    benign: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for key, truth in truths.items():
        attack = truth.label == "attack"
        kind = (truth.attack_family if attack else truth.source) or "unknown"
        (attacks if attack else benign)[kind] += 1
        found[kind] += key in flagged
    return (
        [Row(kind, count, found[kind]) for kind, count in sorted(attacks.items())],
        [Row(kind, count, found[kind]) for kind, count in sorted(benign.items())],
    )
