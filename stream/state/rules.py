"""Rules that stand: exceptions, suppressions and snoozes, of every partition."""

from collections.abc import Sequence

import msgspec

from schemas.control import Rule, RuleAction
from stream.record import StateChange
from stream.state.named import NamedRows
from stream.state.open_findings import Anomaly, OpenFinding

_FIRST: tuple[RuleAction, ...] = ("exception", "suppression", "snooze")
"""Which of several rules that match decides: the one that says most."""


class StandingRule(msgspec.Struct, frozen=True):
    """A rule, as it is stored."""

    rule: Rule
    by_verdict: bool = False
    """Whether a verdict on `rule.finding_uid` began it, and may end it."""
    v: int = 2

    @property
    def until_ms(self) -> int:
        """Core time at which it ends."""
        return self.rule.until_ms


class Rules:
    """Which anomalies are not to become findings; it costs nothing where there are no rules.

    A rule holds from the control that begins it until core time reaches its end, whatever its `from_ms`.
    """

    def __init__(self) -> None:
        self._rows: NamedRows[StandingRule] = NamedRows("rule", StandingRule)
        self._of_tenant: dict[tuple[int, str], list[Rule]] = {}
        self._stale = False

    def __bool__(self) -> bool:
        return bool(self._rows)

    def of_tenant(self, partition: int, tenant: str) -> Sequence[Rule]:
        """What stands for a tenant in a partition, those that decide first before the others."""
        if self._stale:
            self._sort()
        return self._of_tenant.get((partition, tenant), ())

    def begin(self, partition: int, rule: Rule, *, by_verdict: bool) -> Rule | None:
        """Let a rule stand, in the place of an earlier one of its id, which is returned if it differs."""
        standing = StandingRule(rule, by_verdict)
        former = self._rows.get(partition, rule.rule_id)
        if former == standing:
            return None
        self._rows.put(partition, rule.rule_id, standing)
        self._stale = True
        return former.rule if former is not None else None

    def end(self, partition: int, rule_id: str) -> Rule | None:
        """End a rule before its time: the rule, if there was one."""
        former = self._rows.remove(partition, rule_id)
        self._stale = True
        return former.rule if former is not None else None

    def begun_by_verdict(self, partition: int, finding_uid: str) -> list[str]:
        """Ids of the rules that verdicts on a finding began."""
        return [
            name
            for name, each in self._rows.of(partition).items()
            if each.by_verdict and each.rule.finding_uid == finding_uid
        ]

    def match(self, anomaly: Anomaly) -> Rule | None:
        """The rule that decides of an anomaly."""
        key_hash, session = anomaly.key_hash, anomaly.session
        return self.find(anomaly.entity[:2], session, key_hash, anomaly.cause, anomaly.core_time_ms)

    def find(
        self, place: tuple[int, str], session: str | None, key_hash: str | None, signal: str, core_time_ms: int
    ) -> Rule | None:
        """The rule that decides of what `signal` finds anomalous in this partition and tenant at this time."""
        for rule in self.of_tenant(*place):
            if core_time_ms < rule.until_ms and _concerns(rule, session, key_hash, signal):
                return rule
        return None

    def expire(self, partition: int, core_time_ms: int) -> None:
        """Forget what has ended by now."""
        self._stale |= self._rows.expire(partition, core_time_ms)

    def changes(self) -> list[StateChange]:
        """State rows of what changed since the last call."""
        return self._rows.changes()

    def load(self, partition: int, ids: Sequence[str], value: bytes) -> None:
        """Take a stored row back.

        Raises
        ------
        StateError
            When the value is no rule.
        """
        self._rows.load(partition, ids, value)
        self._stale = True

    def drop(self, partition: int) -> None:
        """Forget a partition."""
        self._rows.drop(partition)
        self._stale = True

    def _sort(self) -> None:
        self._stale = False
        self._of_tenant = {}
        for partition, _, each in sorted(self._rows, key=lambda row: (_FIRST.index(row[2].rule.action), row[1])):
            self._of_tenant.setdefault((partition, each.rule.tenant), []).append(each.rule)


def concerns_finding(rule: Rule, tenant: str, finding: OpenFinding) -> bool:
    """Whether a rule is about an open finding, by what is rarest in it so far."""
    return rule.tenant == tenant and _concerns(rule, finding.session, finding.key_hash, finding.cause)


def _concerns(rule: Rule, session: str | None, key_hash: str | None, signal: str) -> bool:
    return (
        (rule.session is None or rule.session == session)
        and (rule.key_hash is None or rule.key_hash == key_hash)
        and (rule.signal is None or rule.signal == signal)
    )
