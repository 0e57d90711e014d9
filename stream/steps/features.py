"""Events -> the numbers that the sequence autoencoder sees, and each event's window of them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.event_head import EventHead
from stream.batch import EventBatch
from stream.state.schema import FEATURES, TOOL_BUCKETS, WINDOW
from stream.state.table import SessionKey, Table
from stream.steps.content import ASSISTANT, SYSTEM, TOOL, USER, Content
from stream.steps.sessions import NewContent, Runs

GRID = 16
"""A feature is stored in steps of 1/16, so that the autoencoder's arithmetic is exact (`models.autoencoder`)."""

_TO_CALL = frozenset({"tool_calls", "tool_use", "function_call"})
_CUT_SHORT = frozenset({"length", "max_tokens", "max_output_tokens"})
"""Why an answer ended, in the words of OpenAI's and Anthropic's interfaces: one thing whoever says it."""
_STEP = {name: i for i, name in enumerate(FEATURES)}


def features(
    batch: EventBatch, new: NewContent, contents: Sequence[Content], previous_time_ms: NDArray[np.int64]
) -> NDArray[np.int8]:
    """Features (n, F) of each event, in steps of 1/GRID.

    Sizes, durations and gaps are logarithms, so that a factor is a distance; counts are capped.

    Parameters
    ----------
    new
        New messages (m).
    contents
        What each of them says (m).
    previous_time_ms
        (n,) event time of the session's event before, or the event's own.
    """
    n = len(batch)
    x = np.zeros((n, len(FEATURES)), np.float64)
    if len(contents):
        event = new.event
        first_output = np.fromiter((len(head.messages) for head in batch.heads), np.int64, n)
        is_output = new.message >= first_output[event]
        role = np.fromiter((c.role for c in contents), np.int64, len(contents))
        chars = np.fromiter((c.chars for c in contents), np.float64, len(contents))
        arguments = np.fromiter((c.argument_chars for c in contents), np.float64, len(contents))
        calls = np.fromiter((len(c.calls) for c in contents), np.float64, len(contents))
        buckets = np.stack([c.buckets for c in contents]).astype(np.float64)

        def total(values: NDArray[np.float64], where: NDArray[np.bool_]) -> NDArray[np.float64]:
            return np.bincount(event[where], values[where], n).astype(np.float64)

        ones = np.ones(len(contents))
        x[:, _STEP["user_chars"]] = np.log1p(total(chars, role == USER)) / 2
        x[:, _STEP["tool_chars"]] = np.log1p(total(chars, role == TOOL)) / 2
        x[:, _STEP["output_chars"]] = np.log1p(total(chars, is_output & (role == ASSISTANT))) / 2
        x[:, _STEP["argument_chars"]] = np.log1p(total(arguments, is_output)) / 2
        x[:, _STEP["messages"]] = total(ones, ~is_output) / 2
        x[:, _STEP["calls"]] = total(calls, is_output)
        x[:, _STEP["tool_results"]] = total(ones, role == TOOL)
        x[:, _STEP["system"]] = np.minimum(total(ones, role == SYSTEM), 1)
        for bucket in range(TOOL_BUCKETS):
            x[:, _STEP["tool_bucket_0"] + bucket] = 2 * total(buckets[:, bucket], is_output)
    x[:, _STEP["prompt_tokens"]] = np.log1p(np.nan_to_num(batch.prompt_tokens)) / 2
    x[:, _STEP["completion_tokens"]] = np.log1p(np.nan_to_num(batch.completion_tokens)) / 2
    x[:, _STEP["duration_ms"]] = np.log1p(np.nan_to_num(batch.duration_ms)) / 4
    x[:, _STEP["gap_ms"]] = np.log1p(np.maximum(batch.event_time_ms - previous_time_ms, 0) / 1000) / 2
    x[:, _STEP["failed"]] = 4 * batch.failed
    x[:, _STEP["finish_tool_calls"]] = [2 * _ended_to_call(head) for head in batch.heads]
    x[:, _STEP["finish_length"]] = [2 * (head.finish_reason in _CUT_SHORT) for head in batch.heads]
    x[:, _STEP["tools_offered"]] = np.log1p([len(head.tools) for head in batch.heads]) / 2
    return np.clip(np.rint(x * GRID), -127, 127).astype(np.int8)


def _ended_to_call(head: EventHead) -> bool:
    """Whether the answer ended for a tool to be called; OpenAI's Responses say `completed` then too."""
    if head.finish_reason == "completed":
        return any(part.type == "tool_call" for message in head.output for part in message.parts)
    return head.finish_reason in _TO_CALL


def windows(
    x: NDArray[np.int8], runs: Runs, table: Table[SessionKey]
) -> tuple[NDArray[np.int8], NDArray[np.int64], NDArray[np.int8], NDArray[np.int64]]:
    """Each event's window, and what its run's next batch will need of it.

    Parameters
    ----------
    x
        Features (n, F).

    Returns
    -------
    windows, lengths
        (n, WINDOW, F), the event itself last, zeros before the first; (n,) how many of them are events.
    tail, tail_lengths
        (k, WINDOW - 1, F) the last events of each run, the oldest first; (k,) how many.
    """
    n, width = x.shape
    k = len(runs.keys)
    keep = WINDOW - 1
    counts = np.bincount(runs.of_event, minlength=k)
    carried = np.where(runs.row >= 0, table["window_used"][runs.row], 0).astype(np.int64)
    base = np.cumsum(counts + keep) - (counts + keep)
    line = np.zeros((n + k * keep, width), np.int8)
    # Carried events stand right-aligned before the run's own, so that one gather makes every window.
    slot = np.arange(keep)
    stored = table["window"][runs.row]  # (k, keep, F), the oldest first; rows of -1 are masked by `carried`
    take = slot[None, :] < carried[:, None]
    target = (base[:, None] + keep - carried[:, None] + slot[None, :])[take]
    line[target] = stored[take]
    at = base[runs.of_event] + runs.position
    line[at + keep] = x
    out = line[at[:, None] + np.arange(WINDOW)[None, :]]
    lengths = np.minimum(carried[runs.of_event] + runs.position + 1, WINDOW)
    tail_lengths = np.minimum(carried + counts, keep)
    end = base + counts + keep
    source = end[:, None] - tail_lengths[:, None] + slot[None, :]
    valid = slot[None, :] < tail_lengths[:, None]
    tail = np.where(valid[:, :, None], line[np.minimum(source, len(line) - 1)], 0).astype(np.int8)
    return out, lengths, tail, tail_lengths
