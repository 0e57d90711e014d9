"""What is said of a batch: findings in order, and a score record for every event."""

from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from stream.batch import EventBatch
from stream.inputs import Outcome
from stream.state.open_findings import Anomaly
from stream.state.partition import Partition
from stream.state.schema import KINDS
from stream.state.store import State
from stream.state.table import TenantKey
from stream.steps.decide import Decider
from stream.steps.drift import Moved
from stream.steps.explain import DRIFT, anomaly, drift_anomaly
from stream.steps.findings import FindingWriter, Source
from stream.steps.score import ScoreInput
from stream.steps.score_record import score_record
from stream.steps.scored import Scored

RARE_P = 0.01
"""Events at or below it are counted signal by signal: where they become more in all tenants, traffic has moved."""


class ReportStep:
    """Says of a scored batch what became of each of its events.

    Parameters
    ----------
    state
        Of which open findings and rules are read.
    findings
        Opens, updates and closes them.
    decider
        Whether there is room for one.
    release
        Name of the one in service.
    """

    def __init__(self, state: State, findings: FindingWriter, decider: Decider, release: str) -> None:
        self._state = state
        self._findings = findings
        self._decider = decider
        self._release = release

    def report(self, scored: Scored, outcome: Outcome) -> None:
        """Findings in order, partition by partition, then a score for every event."""
        placed, given, scores = scored.placed, scored.given, scored.scores
        batch = placed.batch
        at = np.full(len(batch), -1, np.int64)
        at[placed.live] = np.arange(len(placed.live))
        found = np.zeros(len(batch), bool)
        found[placed.live] = scores.anomalous
        moved_at: dict[int, list[Moved]] = {}
        for moved in scores.moved:
            moved_at.setdefault(int(placed.live[moved.event]), []).append(moved)
        moves = np.zeros(len(batch), bool)
        moves[list(moved_at)] = True

        def offset(event: int) -> int:
            return int(batch.offset[event])

        uids: dict[int, str] = {}
        verdicts: dict[int, str] = {}
        for number, mine in placed.of_partition.items():
            held = self._state.partitions[number]

            def fired_by(due_ms: int, number: int = number) -> Source:
                event = placed.fired_by(number, due_ms)
                return batch.topic, number, int(batch.offset[event])

            for i in mine[(found | moves)[mine]].tolist():
                core_time_ms = int(placed.core_time_ms[i])
                self.close(held, core_time_ms, fired_by, outcome)
                for moved in moved_at.get(i, ()):
                    drifted = drift_anomaly(scored, i, moved)
                    decided = self._decided(held, drifted)
                    if decided == "finding":
                        outcome.findings.append(self._findings.flag(drifted, (batch.topic, number, offset(i)))[1])
                    elif decided == "over_budget":
                        # It is on no score: nobody would know.
                        outcome.count({decided: 1})
                if not found[i]:
                    continue
                strange = anomaly(scored, i, int(at[i]))
                verdicts[i] = self._decided(held, strange)
                if verdicts[i] == "finding":
                    uids[i], record = self._findings.flag(strange, (batch.topic, number, offset(i)))
                    outcome.findings.append(record)
            self.close(held, held.core_time_ms, fired_by, outcome)
        decisions: Counter[str] = Counter()
        ordinals = self._ordinals(batch, at, given)
        for i in range(len(batch)):
            record, decision = score_record(
                batch,
                i,
                int(at[i]),
                bool(placed.late[i]),
                ordinals[i],
                scores,
                verdicts.get(i),
                uids.get(i),
                self._release,
            )
            outcome.scores.append(record)
            decisions[decision] += 1
        outcome.count(decisions)
        rare = np.count_nonzero(scores.p <= RARE_P, axis=0).tolist()
        outcome.count({f"rare_{kind}": count for kind, count in zip(KINDS, rare, strict=True)})

    def close(self, held: Partition, core_time_ms: int, fired_by: Callable[[int], Source], outcome: Outcome) -> None:
        """Close the findings of a partition that are due by a core time, each by the record that let it pass."""
        for due, entity in self._state.findings.due(held.number, core_time_ms):
            outcome.findings.append(self._findings.close(entity, due, fired_by(due)))

    def _decided(self, held: Partition, strange: Anomaly) -> str:
        """What becomes of an anomaly: an update of an open finding costs no budget."""
        tenant = strange.entity[1]
        if self._decider.excepted(tenant):
            return "suppressed"
        rule = self._state.rules.match(strange) if self._state.rules else None
        if rule is not None:
            if rule.action == "snooze" and strange.entity in self._state.findings:
                self._state.findings.count(strange, rule.until_ms)
            return "suppressed"
        if strange.entity in self._state.findings:
            return "finding"
        admitted = self._decider.admits(
            tenant, held.number, held.allowances, strange.core_time_ms, strange.p_combined, drift=strange.cause == DRIFT
        )
        return "finding" if admitted else "over_budget"

    def _ordinals(self, batch: EventBatch, at: NDArray[np.int64], given: ScoreInput) -> list[int]:
        """Of each event its ordinal; of a duplicate the one its tenant had reached."""
        numbers: list[int] = given.ordinal[at].tolist() if len(given.ordinal) else [0] * len(batch)
        repeats = np.flatnonzero(at < 0).tolist()
        if not repeats:
            return numbers
        keys: list[TenantKey] = [
            (p, head.tenant) for p, head in zip(batch.partition.tolist(), batch.heads, strict=True)
        ]
        last: dict[TenantKey, int] = {}
        for i in reversed(range(len(batch))):
            if at[i] >= 0:
                last[keys[i]] = numbers[i] - 1
            else:
                row = int(self._state.tenants.find([keys[i]])[0])
                stored = int(self._state.tenants["ordinal"][row]) if row >= 0 else 0
                numbers[i] = last.get(keys[i], stored)
        return numbers
