"""An injected session with other text in the place of what was injected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import msgspec

from evaluation.draws import drawn
from evaluation.injection import Injection, telling_words
from evaluation.insertion import inserted, replaced
from evaluation.rewrites.encodings import DISGUISED, ENCODED
from evaluation.rewrites.lists import lists, worded
from evaluation.spans import runs, words_of
from schemas.corpus import CorpusSession, Turn

REWRITES = ("goal", "diverse", "lang", "encoded", "split")
_PARTS_MAX = 4
_NOTHING = ("", "None", "null", "[]", "{}")
_OPENING = " \n\t\"'`([{<"
"""After these a text begins; after all else it needs a blank."""
_COPIED = 3
"""Words in a row by which an answer repeats the injection."""


def diverse(*names: object) -> str:
    """One of the project's goals in one of its phrasings."""
    own, dice = lists(), drawn("diverse", *names)
    return worded(dice.choice(own.phrasings), dice.choice(own.goals))


def foreign_language(*names: object) -> tuple[str, str]:
    """One of the project's goals in another language, and that language's code."""
    own, dice = lists(), drawn("lang", *names)
    code = dice.choice(sorted(own.languages))
    leads, goals = own.languages[code]
    return dice.choice(leads).format(goal=dice.choice(goals)), code


def encoded(*names: object) -> tuple[str, str, str]:
    """One of the project's goals in another writing, that writing's name, and the goal as it is."""
    own, dice = lists(), drawn("encoded", *names)
    name = dice.choice([*ENCODED, *DISGUISED])
    goal = dice.choice(own.goals)
    if name in DISGUISED:
        return DISGUISED[name](goal), name, goal
    return dice.choice(own.encoded_leads).format(text=ENCODED[name](goal), name=name), name, goal


def answered(injection: Injection) -> int:
    """The turn that ends what the agent is given together with the first injected text: its answer, if there is one."""
    turns = injection.session.turns
    return next((at for at in range(injection.first, len(turns)) if turns[at].role == "assistant"), len(turns))


def rewritten(injection: Injection, text: str) -> CorpusSession:
    """The session with `text` instead, cut after the answer to it.

    What follows that answer is about what was injected, and would betray it. If the answer itself is, it is the clean
    twin's; where the twin has none, the session ends without an answer.
    """
    end = answered(injection)
    return _ended(injection, _replaced(injection, end, text), end)


def split_over(injection: Injection, text: str, *names: object) -> CorpusSession | None:
    """The session with parts of `text` in several tools' results, the last in the place of what was injected.

    None where no other result comes before that place, or `text` is too short to be parted.
    """
    end = answered(injection)
    turns = injection.session.turns
    marked = {span.turn for span in injection.spans}
    before = [
        at
        for at in range(injection.first)
        if turns[at].role == "tool" and at not in marked and turns[at].text.strip() not in _NOTHING
    ]
    dice = drawn("split", *names)
    count = min(dice.randint(2, _PARTS_MAX), len(before) + 1)
    parts = _parted(text, count)
    if len(parts) < 2:
        return None
    leads = lists().split_leads
    lead = dice.choice(leads)
    said = [lead.format(text=part, part=at + 1, parts=len(parts)) for at, part in enumerate(parts[:-1])]
    last = f"({len(parts)} of {len(parts)}) {parts[-1]}" if "{part}" in lead else parts[-1]
    rewritten_turns = dict(enumerate(_replaced(injection, end, last)))
    for at, part in zip(sorted(dice.sample(before, len(said))), said, strict=True):
        host = rewritten_turns[at]
        rewritten_turns[at] = msgspec.structs.replace(host, text=inserted(host.text, part, at, *names), payload=True)
    return _ended(injection, list(rewritten_turns.values()), end)


def _replaced(injection: Injection, end: int, text: str) -> list[Turn]:
    """Turns up to `end`, `text` in each injected place."""
    places: Mapping[int, list[tuple[int, int]]] = {span.turn: [] for span in injection.spans}
    for span in injection.spans:
        places[span.turn].append((span.begin, span.end))
    turns = list(injection.session.turns[:end])
    for at, own in places.items():
        if at < end:
            host = turns[at].text
            glued = any(begin and host[begin - 1] not in _OPENING for begin, _ in own)
            turns[at] = msgspec.structs.replace(turns[at], text=replaced(host, own, f" {text}" if glued else text))
    return turns


def _ended(injection: Injection, turns: list[Turn], end: int) -> CorpusSession:
    own = injection.session.turns[end] if end < len(injection.session.turns) else None
    answer = injection.answer if own is not None and _repeats(own, injection, end) else own
    return msgspec.structs.replace(injection.session, turns=tuple(turns if answer is None else [*turns, answer]))


def _repeats(answer: Turn, injection: Injection, end: int) -> bool:
    """Whether an answer says words of the injection's in a row, or has one in its calls that nobody said before."""
    spoken = runs(words_of(answer.text).words, _COPIED)
    if any(not spoken.isdisjoint(runs(words_of(span.text).words, _COPIED)) for span in injection.spans):
        return True
    theirs = telling_words(injection.spans)
    for turn in injection.session.turns[:end]:
        if not turn.payload:
            theirs.difference_update(words_of(turn.text).words)
    return any(not theirs.isdisjoint(words_of(call.arguments).words) for call in answer.tool_calls)


def _parted(text: str, count: int) -> list[str]:
    words = text.split()
    count = min(count, len(words))
    bounds = [len(words) * at // count for at in range(count + 1)] if count else []
    return [" ".join(words[low:high]) for low, high in pairwise(bounds)]


def payload_chars(injection: Injection) -> int:
    """Characters of what was injected first."""
    return injection.spans[0].end - injection.spans[0].begin


def sites(injections: Sequence[Injection]) -> list[Injection]:
    """Those whose injected text is known, and so can be replaced."""
    return [injection for injection in injections if injection.spans]
