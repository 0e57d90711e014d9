"""The sample as the gateway records that it stands for, each with what is known about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from schemas.corpus import decode_session
from schemas.corpus_records import Truth, litellm_truth, native_truth, to_litellm, to_native
from schemas.corpus_timeline import timeline
from stream.sources.lines import read_lines

HERE = Path(__file__).parent
TRAIN = HERE / "train.jsonl.gz"
"""Benign sessions of ten days."""
LIVE = HERE / "live.jsonl.gz"
"""Benign sessions and attacks of the four days that follow."""

Format = Literal["litellm", "native"]


def records(path: Path, format: Format = "litellm") -> Iterator[tuple[int, dict[str, Any], Truth]]:
    """Start in ms, record and truth of every call in the corpus file `path`, in the order of time.

    Raises
    ------
    ValueError
        When a line is no session, or sessions are not sorted by start.
    """
    sessions = (decode_session(line) for line in read_lines(path) if line.strip())
    for timed in timeline(sessions):
        session, call, time_ms = timed.session, timed.call, timed.time_ms
        if format == "litellm":
            yield time_ms, to_litellm(session, call, time_ms), litellm_truth(session, call)
        else:
            yield time_ms, to_native(session, call, time_ms), native_truth(session, call)
