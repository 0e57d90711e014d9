"""The sample as a gateway that is attacked and looked after: a quiet week, then days with attacks that analysts judge.

The quiet week is all that a first release is trained on: it has been told of no attack. In the three days that follow
come jailbreaks, injections by users, and instructions in what tools return. None of it is of the live days, by task or
by goal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from sample.records import ATTACKS, TRAIN
from schemas.corpus import CorpusSession, calls, decode_session
from schemas.corpus_timeline import UNDATED_START_MS, unit
from stream.sources.lines import read_lines

_DAY_MS = 86_400_000
QUIET_DAYS, JUDGED_DAYS = 7, 3
QUIET_END_MS = UNDATED_START_MS + QUIET_DAYS * _DAY_MS
"""End of the week without attacks, and begin of the days that analysts judge."""
ATTACKED_DAYS = 1.0
"""Of the judged days, from their first on: a campaign that ends, as campaigns do."""
_UNPLACED_SHARE = 0.4
"""Of the attacks that are of no tenant, so many come: else there would be more of them than of all else."""
_CALL_MS = 4_000
"""From one call of an attack to its next."""


def write_quiet_week(out: Path) -> None:
    """The benign sessions of the first days as a corpus file."""
    _write(out, (line for line in _lines(TRAIN) if _start_ms(line) < QUIET_END_MS))


def history() -> list[CorpusSession]:
    """Sessions of the ten days before the live ones, the attacks among them, in the order of their start."""
    benign = [decode_session(line) for line in _lines(TRAIN)]
    return sorted([*benign, *_placed(benign)], key=_begin)


def _placed(benign: Sequence[CorpusSession]) -> Iterator[CorpusSession]:
    """The attacks that come, each with a key and a time of its tenant's."""
    by_tenant: dict[str, list[CorpusSession]] = {}
    for session in benign:
        by_tenant.setdefault(str(session.tenant), []).append(session)
    tenants = sorted(by_tenant)
    for line in _lines(ATTACKS):
        attack = decode_session(line)
        if attack.tenant is None and unit("comes", attack.session) >= _UNPLACED_SHARE:
            continue
        tenant = attack.tenant or tenants[int(unit("tenant", attack.session) * len(tenants))]
        like = by_tenant[tenant][int(unit("like", attack.session) * len(by_tenant[tenant]))]
        start_ms = QUIET_END_MS + int(unit("start", attack.session) * ATTACKED_DAYS * _DAY_MS)
        yield msgspec.structs.replace(
            attack,
            tenant=tenant,
            key=attack.key or like.key,
            tools=attack.tools or like.tools,
            start_ms=start_ms,
            calls_ms=tuple(start_ms + number * _CALL_MS for number in range(len(calls(attack)))),
        )


def _lines(path: Path) -> Iterator[bytes]:
    return (line for line in read_lines(path) if line.strip())


def _write(out: Path, lines: Iterator[bytes]) -> None:
    with out.open("wb") as file:
        file.writelines(line.rstrip(b"\n") + b"\n" for line in lines)


def _begin(session: CorpusSession) -> int:
    return session.calls_ms[0] if session.calls_ms else session.start_ms or 0


def _start_ms(line: bytes) -> int:
    return _begin(decode_session(line))
