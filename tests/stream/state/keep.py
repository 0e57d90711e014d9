"""Keeps the state of this version, for later ones to be tested against.

    python -m tests.stream.state.keep NAME

writes `kept/NAME.jsonl`: what the file has to come back as, then the live rows of the state topic in their order. It is
run once, before a row version or `STATE_SCHEMA` changes, and never again for that version: a kept file is what users
have on their topics.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import orjson

from stream.core import Core
from stream.inputs import Applied, InputBatch
from stream.state.schema import STATE_SCHEMA
from tests.doubles import WordEmbedder
from tests.stream.controls import begin, verdict
from tests.stream.releases import release
from tests.stream.streams import SETTINGS, TOPIC, Said, cut, run, stream, tick

KEPT = Path(__file__).parent / "kept"
RECORDS = stream(seed=11, n=150, partitions=1, tenants=3)
AT = 120
"""Records scored before the state is kept."""


def core() -> Core:
    """One that has seen nothing."""
    return Core(SETTINGS, release(), WordEmbedder())


def controls() -> InputBatch:
    """A rule and a verdict that outlast the stream."""
    until_ms = RECORDS[-1].timestamp_ms + 10**9
    rule = begin(rule_id="kept", tenant="team-1", session="none", until_ms=until_ms)
    effect = verdict("keep_out", session="séance 1", tenant="team-1", risk_ms=10**9)
    return InputBatch([], [Applied(0, "control", value, i) for i, value in enumerate((rule, effect))], topic=TOPIC)


def live_rows(said: Said) -> dict[bytes, bytes]:
    """Rows that compaction would leave, in the order of their last writes."""
    rows: dict[bytes, bytes] = {}
    for key, value in said.rows[0]:
        rows.pop(key, None)
        if value is not None:
            rows[key] = value
    return rows


def to_the_middle() -> tuple[Core, Said]:
    """A core that has scored the first `AT` records, and what it said."""
    live = core()
    said = run(live, [tick(0, RECORDS[0].timestamp_ms - 1), controls()])
    run(live, cut(RECORDS[:AT], 20), said)
    return live, said


def told(live: Core) -> dict[str, Any]:
    """What a core holds, in a few numbers."""
    names, columns = live.export_tenants()
    cursor = live.cursor(0)
    assert cursor is not None
    return {
        "core_time_ms": cursor.core_time_ms,
        "next_offset": cursor.next_offset,
        "ordinals": dict(zip(names, columns["ordinal"].tolist(), strict=True)),
        "used": dict(zip(names, columns["used"].tolist(), strict=True)),
    }


def main(name: str) -> None:
    """Write the file."""
    live, said = to_the_middle()
    rows = live_rows(said)
    head = {"state_schema": STATE_SCHEMA, "rows": len(rows), **told(live)}
    lines = [head, *({"key": key.decode(), "value": value.decode()} for key, value in rows.items())]
    with (KEPT / f"{name}.jsonl").open("xb") as file:
        file.writelines(orjson.dumps(line, option=orjson.OPT_SORT_KEYS) + b"\n" for line in lines)


if __name__ == "__main__":
    main(sys.argv[1])
