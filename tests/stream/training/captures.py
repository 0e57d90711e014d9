"""Small captures to train on: conversations of a few tenants, as corpus lines and as events."""

from __future__ import annotations

import gzip
from pathlib import Path
from random import Random
from typing import Any

import orjson

from stream.config import LearningSettings, Settings

START_MS = 1_795_000_000_000
SETTINGS = Settings(learning=LearningSettings(grace_sessions=3, examples=False))
_WORDS = "please book the flight to rome for two people and send a summary of the offer by mail today".split()


def session(number: int, tenant: str = "team-0", **changed: Any) -> dict[str, Any]:
    """A corpus line's session: a request, a tool's answer, a summary."""
    rng = Random(f"{tenant} {number}")

    def said(words: int) -> str:
        return " ".join(rng.choices(_WORDS, k=words))

    turns = [
        {"role": "user", "text": said(12)},
        {"role": "assistant", "text": "", "tool_calls": [{"name": "search", "args": {"query": said(3)}}]},
        {"role": "tool", "text": said(30)},
        {"role": "assistant", "text": said(9)},
    ]
    return {
        "session": f"s{number}",
        "tenant": tenant,
        "label": "benign",
        "start_ms": START_MS + 600_000 * number,
        "turns": turns,
        **changed,
    }


def corpus(sessions: int = 24, tenants: int = 3) -> list[dict[str, Any]]:
    """Benign sessions in turn of `tenants`, two each of one task."""
    return [session(i, f"team-{i % tenants}", task=f"t{i // (2 * tenants)}") for i in range(sessions)]


def write_lines(path: Path, values: list[dict[str, Any]]) -> Path:
    """A file of JSON lines, packed where it is called so."""
    body = b"".join(orjson.dumps(value) + b"\n" for value in values)
    path.write_bytes(gzip.compress(body, mtime=0) if path.suffix == ".gz" else body)
    return path
