"""`tidegate exceptions`: what is not to become a finding for a while, who said so, why, and until when."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Literal

import msgspec
import orjson

from schemas.control import Control, Rule, RuleChange, VerdictEffect
from schemas.safe_text import safe_text
from schemas.undecodable import UNDECODABLE
from stream.config import Settings
from stream.errors import UsageError
from stream.record import Record
from stream.runtime.clients import now_ms
from stream.runtime.release.promote import send_control
from stream.runtime.release.words import table, time_of
from stream.runtime.topic_reader import TopicReader

_CONTROL = msgspec.json.Decoder(Control)
_DAY_MS = 86_400_000
_DAYS_MAX = 366
_ID_DIGITS = 10
_NAME_CHARS = 60
_WHY_CHARS = 100
_ROLE = "exceptions"


@dataclass(frozen=True, slots=True)
class Listed:
    """A rule that was ever begun."""

    rule: Rule
    by: Literal["exception", "verdict"]
    """The kind of control that began it."""
    offset: int
    """Of that control."""
    ended_ms: int | None = None
    """When it was removed or replaced before its time."""
    ended_by: str = ""
    """Who or what did."""

    def state(self, at_ms: int) -> str:
        """`in force`, `removed` or `ended`."""
        if self.ended_ms is not None and self.ended_ms < self.rule.until_ms:
            return "removed"
        return "in force" if at_ms < self.rule.until_ms else "ended"


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """List rules, begin one or end one.

    Raises
    ------
    TidegateError
        With the exit code that says what is wrong.
    """
    if arguments.action == "add":
        return _add(settings, arguments)
    if arguments.action == "remove":
        return _remove(settings, arguments)
    return _list(settings, arguments)


# -- add and remove ----------------------------------------------------------------------------------------------------


def _add(settings: Settings, arguments: argparse.Namespace) -> int:
    rule = rule_of(arguments, now_ms())
    change = RuleChange(rule=rule)
    value = msgspec.to_builtins(change)
    offset = send_control(settings, _ROLE, "exception", value, issuer=rule.who, tenant=rule.tenant)
    print(
        f"{rule.rule_id}: {rule.action} of {_scope(rule)} until {time_of(rule.until_ms)} (control {offset}). It begins "
        "when each partition comes to it, and ends once the events' own time has passed that.\n"
        f"End it before with: tidegate exceptions remove {rule.rule_id} --who {safe_text(rule.who, _NAME_CHARS)}"
    )
    return 0


def rule_of(arguments: argparse.Namespace, at_ms: int) -> Rule:
    """The rule that the flags describe, beginning at `at_ms`, the clock by which gateways stamp events too.

    Raises
    ------
    UsageError
        When a name is empty, a snooze is of nobody, or it would last for more than a year.
    """
    for flag in ("tenant", "session", "key", "signal", "who", "why"):
        if getattr(arguments, flag) is not None and not getattr(arguments, flag).strip():
            raise UsageError(f"--{flag} must not be empty; leave it out, or say {_MEANT[flag]}.")
    if arguments.rule_action == "snooze" and arguments.session is None and arguments.key is None:
        raise UsageError(
            "--action snooze silences the finding of one entity: it needs --session or --key. To silence a tenant for "
            "a while, use --action suppression."
        )
    _check_signal(arguments.signal)
    if not 0 < arguments.days <= _DAYS_MAX:
        raise UsageError(
            f"--days must be above 0 and at most {_DAYS_MAX}; got {arguments.days:g}. Add the rule anew when it ends, "
            "or name the tenant in decision.exceptions."
        )
    until_ms = at_ms + round(arguments.days * _DAY_MS)
    rule = Rule(
        rule_id="-",
        action=arguments.rule_action,
        tenant=arguments.tenant,
        session=arguments.session,
        key_hash=arguments.key,
        signal=arguments.signal,
        who=arguments.who,
        why=arguments.why,
        from_ms=at_ms,
        until_ms=until_ms,
    )
    rule = msgspec.structs.replace(rule, rule_id=rule_id(rule))
    try:
        return msgspec.convert(msgspec.to_builtins(rule), Rule)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"the rule must be one that a scorer takes: {error}. Say it in fewer words or days."
        ) from error


def rule_id(rule: Rule) -> str:
    """`x-` and the first hex digits of sha256 over all else that the rule says, its time included."""
    plain = {key: value for key, value in msgspec.to_builtins(rule).items() if key != "rule_id"}
    return "x-" + sha256(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)).hexdigest()[:_ID_DIGITS]


_MEANT = {
    "tenant": "whose events are meant",
    "session": "which session is meant",
    "key": "which key's hash is meant",
    "signal": "which signal is meant",
    "who": "who asks for it",
    "why": "why, for whoever wonders later",
}


def _check_signal(signal: str | None) -> None:
    # It imports numpy, which nobody else here needs.
    from stream.state.schema import KINDS

    names = (*KINDS, "drift")
    if signal is not None and signal not in names:
        raise UsageError(f"--signal must be one of {', '.join(names)}; got {signal!r}.")


def _remove(settings: Settings, arguments: argparse.Namespace) -> int:
    named = arguments.rule_id
    with closing(TopicReader(settings, _ROLE)) as reader:
        found = [each for each in _rules(reader, settings) if each.rule.rule_id == named]
    if not found:
        raise UsageError(
            f"rule {named!r} is not on {settings.topics.controls}. 'tidegate exceptions list' shows those that are in "
            "force. What decision.exceptions says is ended in the scorer's settings."
        )
    (state, rule) = found[-1].state(now_ms()), found[-1].rule
    if state != "in force":
        raise UsageError(f"rule {named!r} is not in force any more: it was {state}. There is nothing to remove.")
    value = msgspec.to_builtins(RuleChange(remove=named))
    offset = send_control(settings, _ROLE, "exception", value, issuer=arguments.who, tenant=rule.tenant)
    print(f"{named}: {rule.action} of {_scope(rule)} ends when each partition comes to control {offset}.")
    return 0


# -- list --------------------------------------------------------------------------------------------------------------


def _list(settings: Settings, arguments: argparse.Namespace) -> int:
    at_ms = now_ms()
    with closing(TopicReader(settings, _ROLE)) as reader:
        found = _rules(reader, settings)
    shown = [each for each in found if arguments.all or each.state(at_ms) == "in force"]
    configured = dict(settings.decision.exceptions)
    if arguments.json:
        plain = {"rules": [_plain(each, at_ms) for each in shown], "decision.exceptions": configured}
        print(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS).decode())
        return 0
    print("\n".join(_lines(shown, configured, at_ms, len(found) - len(shown))))
    return 0


def _rules(reader: TopicReader, settings: Settings) -> list[Listed]:
    topic = settings.topics.controls
    bounds = reader.bounds(topic)[0]
    batches = reader.read(topic, 0, bounds.start, bounds.end)
    return rules(record for records in batches for record in records)


def rules(records: Iterable[Record]) -> list[Listed]:
    """Every rule that controls ever began, in that order, as the core takes them.

    A rule in the place of an earlier one of the same id ends that; a verdict's ends when a later one on its finding
    comes without it.
    """
    found: list[Listed] = []
    effects: dict[str, VerdictEffect] = {}

    def end(names: Iterable[str], control: Control) -> None:
        for name in names:
            for place, each in enumerate(found):
                if each.rule.rule_id == name and each.ended_ms is None:
                    found[place] = replace(each, ended_ms=control.time_ms, ended_by=control.issuer)

    for record in records:
        control, change = _decoded(record.value or b"")
        if control is None:
            continue
        begun: Rule | None = None
        if isinstance(change, RuleChange):
            begun = change.rule
            end([change.remove] if change.remove is not None else [], control)
        elif isinstance(change, VerdictEffect) and effects.get(change.finding_uid) != change:
            effects[change.finding_uid] = change
            begun = change.rule
            end(_of_finding(found, change, begun), control)
            if begun is not None:
                begun = msgspec.structs.replace(begun, finding_uid=change.finding_uid)
        if begun is not None:
            by: Literal["exception", "verdict"] = "verdict" if isinstance(change, VerdictEffect) else "exception"
            if any(each.rule == begun and each.by == by and each.ended_ms is None for each in found):
                continue
            end([begun.rule_id], control)
            found.append(Listed(begun, by, record.offset))
    return found


def _of_finding(found: Iterable[Listed], effect: VerdictEffect, begun: Rule | None) -> list[str]:
    """Rules that earlier verdicts on a finding began, and that are not begun again."""
    return [
        each.rule.rule_id
        for each in found
        if each.by == "verdict"
        and each.rule.finding_uid == effect.finding_uid
        and (begun is None or each.rule.rule_id != begun.rule_id)
    ]


def _decoded(value: bytes) -> tuple[Control | None, RuleChange | VerdictEffect | None]:
    if b'"rule"' not in value and b'"remove"' not in value:
        return None, None
    try:
        control = _CONTROL.decode(value)
        if control.kind == "exception":
            return control, msgspec.convert(control.value, RuleChange)
        if control.kind == "verdict":
            return control, msgspec.convert(control.value, VerdictEffect)
    except UNDECODABLE:
        # The scorer passes it over too, and says so.
        return None, None
    return None, None


def _plain(listed: Listed, at_ms: int) -> dict[str, Any]:
    return {
        **msgspec.to_builtins(listed.rule),
        "state": listed.state(at_ms),
        "by": listed.by,
        "control_offset": listed.offset,
        "ended_ms": listed.ended_ms,
        "ended_by": listed.ended_by or None,
    }


def _lines(shown: list[Listed], configured: Mapping[str, str], at_ms: int, hidden: int) -> Iterator[str]:
    if shown:
        heads = ("rule", "action", "of", "who", "why", "from", "until", "state")
        yield from table([heads, *(_row(each, at_ms) for each in shown)])
    else:
        yield "No exception, suppression or snooze is in force."
    if hidden:
        yield f"\n{hidden} more ended or {'were' if hidden > 1 else 'was'} removed: --all shows them."
    if configured:
        yield "\nBy decision.exceptions of these settings, as long as the scorers have them too:"
        yield from table(
            [
                ("tenant", "why"),
                *((safe_text(t, _NAME_CHARS), safe_text(why, _WHY_CHARS)) for t, why in sorted(configured.items())),
            ]
        )
    yield "\nTimes are those of events, by the gateways' clocks: a rule ends once a partition's events have passed it."


def _row(listed: Listed, at_ms: int) -> tuple[str, ...]:
    rule, state = listed.rule, listed.state(at_ms)
    if state == "removed":
        state = f"removed {time_of(listed.ended_ms or 0)} by {safe_text(listed.ended_by, _NAME_CHARS)}"
    why = safe_text(rule.why, _WHY_CHARS)
    if listed.by == "verdict" or rule.finding_uid is not None:
        why += f" (finding {safe_text(rule.finding_uid or '?', 32)})"
    return (
        safe_text(rule.rule_id, 64),
        rule.action,
        _scope(rule),
        safe_text(rule.who, _NAME_CHARS),
        why,
        time_of(rule.from_ms),
        time_of(rule.until_ms),
        state,
    )


def _scope(rule: Rule) -> str:
    """Whom and what a rule is about.

    >>> from schemas.control import Rule
    >>> _scope(Rule(rule_id="x", action="snooze", tenant="t", session="s", who="a", why="b", from_ms=0, until_ms=1))
    'tenant t, session s'
    """
    parts = {"tenant": rule.tenant, "session": rule.session, "key": rule.key_hash, "signal": rule.signal}
    return ", ".join(f"{name} {safe_text(each, _NAME_CHARS)}" for name, each in parts.items() if each is not None)
