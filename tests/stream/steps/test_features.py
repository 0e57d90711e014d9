"""The numbers that the sequence autoencoder sees, whoever's words they were told in."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from stream.state.schema import FEATURES, session_table
from stream.steps.decode import decode
from stream.steps.features import features
from stream.steps.sessions import find_new_content, find_runs
from tests.stream.streams import START_MS, event, message, record, text

CALL = message("assistant", [{"type": "tool_call", "id": "c", "name": "search", "arguments": "{}"}])
ANSWER = text("assistant", "done")


def _features(reason: str, calls: bool) -> NDArray[np.int8]:
    value = event(1, START_MS, [text("user", "go on")], [CALL if calls else ANSWER], finish_reason=reason)
    batch, _ = decode([record(0, value)], future_ms=0)
    runs = find_runs([(0, "team-1", "s")], batch.event_time_ms, batch.event_time_ms, session_table(), 60_000)
    new, _ = find_new_content(batch, runs, session_table())
    none = new.message[:0]
    new.event, new.message, new.unseen = none, none, none.astype(bool)
    x: NDArray[np.int8] = features(batch, new, [], batch.event_time_ms)[0]
    return x


@pytest.mark.parametrize(
    ("reason", "calls", "feature"),
    [
        ("tool_calls", True, "finish_tool_calls"),
        ("tool_use", True, "finish_tool_calls"),
        ("completed", True, "finish_tool_calls"),
        ("length", False, "finish_length"),
        ("max_tokens", False, "finish_length"),
        ("max_output_tokens", False, "finish_length"),
        ("stop", False, None),
        ("end_turn", False, None),
        ("completed", False, None),
    ],
)
def test_why_an_answer_ended_is_one_feature_whichever_gateway_says_it(
    reason: str, calls: bool, feature: str | None
) -> None:
    x = _features(reason, calls)
    set_to = {name: int(x[FEATURES.index(name)]) for name in ("finish_tool_calls", "finish_length")}
    # 2 in steps of 1/16.
    assert set_to == {name: 32 * (name == feature) for name in set_to}
