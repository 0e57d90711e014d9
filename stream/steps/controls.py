"""What rules and verdicts do to a partition's state when their control takes effect."""

from collections.abc import Callable

import msgspec
import numpy as np

from schemas.control import Rule, RuleChange, VerdictEffect
from stream.release import Release
from stream.state.open_findings import OpenFinding
from stream.state.partition import Partition
from stream.state.rules import concerns_finding
from stream.state.schema import NEVER_MS
from stream.state.store import State
from stream.state.verdicts import StandingEffect, held_back_by
from stream.steps.rings import adopt

_LONGEST_MS = 1 << 61


class ControlStep:
    """Lets rules and verdicts take effect, each in the partition whose turn it is.

    Parameters
    ----------
    quarantine_ms
        Core time that flagged segments are held back: so long a verdict keeps a session's out, and is known not to take
        effect twice.
    release
        In service.
    """

    def __init__(self, state: State, quarantine_ms: int, release: Release) -> None:
        self._state = state
        self._quarantine_ms = quarantine_ms
        self._release = release

    def change_rule(self, held: Partition, change: RuleChange) -> None:
        """Begin a rule, end one, or both."""
        if change.remove is not None:
            self._end(held, change.remove)
        if change.rule is not None:
            self._begin(held, change.rule, by_verdict=False)

    def take_verdict(self, held: Partition, effect: VerdictEffect, time_ms: int) -> None:
        """Do what the verdicts on a finding ask for; what they asked for before ends, and nothing is done twice.

        Parameters
        ----------
        time_ms
            When the control was issued: core time where the partition has none yet.
        """
        standing = self._state.verdicts.get(held.number, effect.finding_uid)
        if standing is not None and standing.effect == effect:
            return
        now_ms = held.core_time_ms if held.core_time_ms != NEVER_MS else time_ms
        kept_out = effect.effect == "keep_out" and not effect.adopt
        known_ms = now_ms + max(self._quarantine_ms, effect.risk_ms, 1)
        standing = StandingEffect(
            effect,
            kept_out_until_ms=min(now_ms + self._quarantine_ms, _LONGEST_MS) if kept_out else NEVER_MS,
            risk_until_ms=min(now_ms + effect.risk_ms, _LONGEST_MS) if effect.risk_ms > 0 else NEVER_MS,
            until_ms=min(known_ms, _LONGEST_MS),
        )
        self._state.verdicts.put(held.number, standing)
        self._change_rule_of(held, effect)
        row = int(self._state.tenants.find([(held.number, effect.tenant)])[0])
        if row < 0:
            # Of another partition's tenant there is nothing here to change.
            return
        target = held_back_by(effect)
        if target is not None and kept_out:
            self._state.quarantine.forget(row, target)
        elif target is not None and (effect.effect == "admit" or effect.adopt):
            # Later than any learn point so far: a reader takes what was due at one to have been learned.
            self._state.quarantine.admit(row, target, now_ms + 1)
        if effect.adopt:
            adopt(self._state.tenants, np.array([row], np.int64), self._release)

    def _change_rule_of(self, held: Partition, effect: VerdictEffect) -> None:
        for rule_id in self._state.rules.begun_by_verdict(held.number, effect.finding_uid):
            if effect.rule is None or rule_id != effect.rule.rule_id:
                self._end(held, rule_id)
        if effect.rule is not None:
            rule = msgspec.structs.replace(effect.rule, finding_uid=effect.finding_uid)
            self._begin(held, rule, by_verdict=True)

    def _begin(self, held: Partition, rule: Rule, *, by_verdict: bool) -> None:
        former = self._state.rules.begin(held.number, rule, by_verdict=by_verdict)
        if former is not None:
            self._speak(held, former)
        if rule.action == "snooze" and held.core_time_ms < rule.until_ms:
            self._state.findings.mute(held.number, rule.until_ms, _concerned(rule))

    def _end(self, held: Partition, rule_id: str) -> None:
        former = self._state.rules.end(held.number, rule_id)
        if former is not None:
            self._speak(held, former)

    def _speak(self, held: Partition, former: Rule) -> None:
        if former.action != "snooze":
            return
        self._state.findings.unmute(held.number, held.core_time_ms, _concerned(former))
        for rule in self._state.rules.of_tenant(held.number, former.tenant):
            if rule.action == "snooze":
                self._state.findings.mute(held.number, rule.until_ms, _concerned(rule))


def _concerned(rule: Rule) -> Callable[[str, OpenFinding], bool]:
    return lambda tenant, finding: concerns_finding(rule, tenant, finding)
