"""What a tool gives back of what its session's user or model wrote: whoever said it first, it is not the tool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from schemas.event_head import EventHead
from stream.steps.content import ASSISTANT, CALL, USER, Content, ContentReader
from stream.steps.sessions import NewContent

ECHO_SHARE = 0.8
"""Of the weight of a passage's words: what a tool adds of its own ("sent to", a date) is little beside a letter."""
ECHO_WORDS_MIN = 4
"""Words that say something, for a share of them to: a short order may hold but a name that the user has said."""
_WRITTEN = (USER, ASSISTANT, CALL)
"""By whom. Operators write too many words for a share of them to mean that they wrote these."""


def without_echoes(
    heads: Sequence[EventHead], new: NewContent, contents: Sequence[Content], reader: ContentReader
) -> list[Content]:
    """Contents (m) of events' (n) new messages, in which a tool's echo of its own request speaks like nobody.

    A mail tool that answers with the mail as it was sent speaks like a user, in words that the model wrote for one.
    What a tool said first and a model then repeats is judged where the tool said it. Where a gateway does not resend
    the history, there is nothing to compare with, and the passage is judged as any other.
    """
    out = list(contents)
    for i in np.flatnonzero(new.unseen).tolist():
        passages = contents[i].orders
        if len(passages) == 0:
            continue
        before = heads[new.event[i]].messages[: int(new.message[i])]
        echoed = passages[_echoes(contents[i], passages, reader.read([each for each in before if each.role != "tool"]))]
        if len(echoed):
            judged = contents[i].judged.copy()
            judged[echoed, 0] = np.nan
            # The reader's own is shared by every session that holds the message.
            out[i] = replace(contents[i], judged=judged)
    return out


def _echoes(content: Content, passages: NDArray[np.intp], before: Sequence[Content]) -> NDArray[np.bool_]:
    """Which of the `passages` (p) of a message say, by the weight of their words, what is written in `before`."""
    written = [each.words.hash[np.isin(each.roles, _WRITTEN)].ravel() for each in before]
    written += [each.asked.hash.ravel() for each in before]
    hashes, weights = content.words.hash[passages], content.words.weight[passages].astype(np.int64)
    known = np.isin(hashes, np.concatenate(written)) if written else np.zeros(hashes.shape, np.bool_)
    enough = (hashes != 0).sum(axis=1) >= ECHO_WORDS_MIN
    said: NDArray[np.bool_] = enough & ((weights * known).sum(axis=1) >= ECHO_SHARE * weights.sum(axis=1))
    return said
