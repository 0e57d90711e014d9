"""A corpus as a folder of lines."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path

import orjson

from schemas.corpus import CorpusSession


def write_corpus(folder: Path, sessions: Iterable[CorpusSession]) -> Path:
    """Write `sessions` into `folder` in the documented layout."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "office.jsonl.gz").write_bytes(gzip.compress(b"".join(map(_line, sessions)), mtime=0))
    return folder


def _line(session: CorpusSession) -> bytes:
    names = ("source", "tenant", "session", "label", "attack_family", "task", "lang", "model", "key")
    turns = [
        {
            "role": turn.role,
            "text": turn.text,
            "tool_calls": [{"name": call.name, "args": orjson.loads(call.arguments)} for call in turn.tool_calls],
            "payload": turn.payload,
        }
        for turn in session.turns
    ]
    return orjson.dumps({**{name: getattr(session, name) for name in names}, "turns": turns}) + b"\n"
