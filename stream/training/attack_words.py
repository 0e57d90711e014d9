"""Labels -> the words of attacks, of what was mistaken for them, and of what tools said beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from schemas.event_head import EventHead, MessageHead
from schemas.label import Label, LabelledSegment, Teaches
from stream.steps.content import JUDGED, TOOL, USER, Embeds, segmented
from stream.training.attacks import AttackTexts
from stream.training.capture import Captured, Session, SessionFacts, plain
from stream.training.labels import families_of, sessions_of

Surprise = Callable[[Sequence[str]], NDArray[np.floating]]
"""Log-odds (s,) that texts (s) are of no tool, NaN where nobody can say."""

LABELS = "labels"
"""Source of the segments that labels name."""
SPEAKS_P = 0.05
"""P-value up to which a signal that reads text has said something of a finding."""
_WHOLE_SEGMENTS = 6
"""A message of so few segments belongs to the attack as a whole; of a longer one only what stands about an excerpt."""
_AROUND = 2
_READERS = frozenset({"novelty", "tool_novelty", "role_surprise", "provenance", "known_attack", "tool_known_attack"})
"""Signals that read text: what volume or sequence alone found has no words to learn."""
_ATTACKS_FROM, _TOOLS_BELOW = 0.75, 0.5
"""Of the largest role surprise in a tool's result that holds an attack: from the one on it is the attack's, below the
other the tool's."""
_TOOLS_MOST = 5.0
"""Log-odds from which nothing is the tool's: a louder sentence beside it makes no order harmless."""


@dataclass(frozen=True, slots=True)
class FoundSegment:
    """Words that a finding points at, and that an analyst has judged."""

    text: str
    families: tuple[str, ...]
    """Of attack, that its techniques stand for."""
    group: str
    """Its session."""


def attack_texts(segments: Sequence[FoundSegment], embedder: Embeds) -> AttackTexts | None:
    """What the segments of labelled attacks teach a classifier; None where there are none."""
    # The classes belong to the fit, which takes a second to import.
    from models.training.attack_classifier import attack_classes

    if not segments:
        return None
    texts = [segment.text for segment in segments]
    classes = [
        np.logical_or.reduce([attack_classes(family, segment.text) for family in segment.families])
        for segment in segments
    ]
    return AttackTexts(
        embedder.encode(texts),
        np.array(classes, np.bool_),
        [LABELS] * len(texts),
        [segment.group for segment in segments],
    )


def label_texts(captured: Captured, label: Label) -> list[str]:
    """Segments that a label's evidence points at: of the captured events' messages, else the excerpts themselves."""
    return list(dict.fromkeys(text for text, _ in _texts(label, captured)))


def found_segments(
    teaches: Teaches,
    counted: Sequence[Label],
    captured: Captured,
    facts: Mapping[Session, SessionFacts],
    surprise: Surprise | None = None,
    common: Collection[tuple[str, str]] = (),
) -> list[FoundSegment]:
    """Words of findings whose sessions are not held out, each once a session, without what is `common`."""
    segments: dict[tuple[str, str], FoundSegment] = {}
    for label in counted:
        if label.teaches != teaches or not _speaks(label):
            continue
        sessions = sorted(sessions_of(label))
        known = [facts[name] for name in sessions if name in facts]
        if any(fact.held_out or (teaches == "benign" and fact.judged == "attack") for fact in known):
            continue
        families = families_of(label.techniques)
        group = orjson.dumps(sessions[0]).decode()
        texts = {
            text: role for text, role in _texts(label, captured) if role != TOOL or (label.tenant, text) not in common
        }
        for text in texts if surprise is None or not texts else _unlike_tools(texts, surprise):
            segments.setdefault((group, text), FoundSegment(text, families, group))
    return list(segments.values())


def ordinary(captured: Captured, facts: Mapping[Session, SessionFacts]) -> set[tuple[str, str]]:
    """Tenants and what their tools return in more sessions that teach what is normal than in judged attacks.

    A letter that lies in a mailbox is returned again and again, beside attacks and without; it is not their words. What
    was found and nobody has judged counts for neither: one session of a campaign may be all that an analyst looked at.
    """
    calm: Counter[tuple[str, str]] = Counter()
    attacked: Counter[tuple[str, str]] = Counter()
    read: dict[str, list[str]] = {}
    for name, fact in facts.items():
        messages = {
            message.digest: message for at in captured.of_session[name] for message in captured.heads[at].messages
        }
        for digest, message in messages.items():
            if digest not in read:
                read[digest] = [text for text, role in _judged_texts(message) if role == TOOL]
        texts = {(fact.tenant, text) for digest in messages for text in read[digest]}
        if fact.judged == "attack":
            attacked.update(texts)
        elif fact.learns:
            calm.update(texts)
    return {name for name, count in calm.items() if count > attacked[name]}


def beside(
    counted: Sequence[Label],
    captured: Captured,
    facts: Mapping[Session, SessionFacts],
    surprise: Surprise,
    attacks: Sequence[FoundSegment],
) -> list[FoundSegment]:
    """What tools said, in the messages that attacks' findings show, that speaks like a tool beside the attack.

    Sessions that hold an attack teach nothing benign: what a tool says nowhere else would be the attack's. Words that
    are the attack's in as many sessions stay the attack's.
    """
    found: dict[tuple[str, str], FoundSegment] = {}
    for label in counted:
        if label.teaches != "attack" or not _speaks(label):
            continue
        if any(facts[name].held_out for name in sessions_of(label) if name in facts):
            continue
        group = orjson.dumps(min(sessions_of(label))).decode()
        texts = list(dict.fromkeys(text for text, role in _shown_whole(label, captured) if role == TOOL))
        odds = surprise(texts) if texts else np.zeros(0)
        least = min(float(odds.max(initial=0.0)) * _TOOLS_BELOW, _TOOLS_MOST)
        if least > 0:
            for text, height in zip(texts, odds.tolist(), strict=True):
                if height < least:
                    found.setdefault((group, text), FoundSegment(text, (), group))
    theirs = Counter(segment.text for segment in attacks)
    own = Counter(text for _, text in found)
    return [segment for segment in found.values() if own[segment.text] > theirs[segment.text]]


def _shown_whole(label: Label, captured: Captured) -> Iterator[tuple[str, int]]:
    """All of the captured messages that a label shows parts of."""
    shown = {(segment.event_id, segment.message_index) for segment in label.segments}
    for event in label.events:
        at = captured.of_place.get((event.partition, event.offset))
        if at is not None:
            for number, message in enumerate(captured.heads[at].messages):
                if (event.event_id, number) in shown:
                    yield from _judged_texts(message)


def _unlike_tools(texts: Mapping[str, int], surprise: Surprise) -> list[str]:
    """What of a tool's result speaks almost as little like one as what does so least, and all that users say.

    An attack in a tool's result stands among what the tool returned anyway, and of that nothing is to be learned.
    """
    odds = surprise(list(texts))
    tool = np.array([role == TOOL for role in texts.values()], np.bool_)
    if not tool.any() or np.isnan(odds[tool]).any():
        return list(texts)
    least = max(float(odds[tool].max()) * _ATTACKS_FROM, 0.0)
    return [text for text, mine, height in zip(texts, tool, odds, strict=True) if not mine or height >= least]


def _speaks(label: Label) -> bool:
    """Whether what was found has to do with words."""
    return not label.p or any(p <= SPEAKS_P for name, p in label.p.items() if name in _READERS)


def _texts(label: Label, captured: Captured) -> Iterator[tuple[str, int]]:
    """Texts and who said them, as the content step numbers roles."""
    places = captured.of_place
    heads = {
        event.event_id: captured.heads[places[event.partition, event.offset]]
        for event in label.events
        if (event.partition, event.offset) in places
    }
    if label.segments:
        for shown in label.segments:
            yield from _about(shown, heads.get(shown.event_id))
        return
    # Labels without excerpts refer to events: what was new in them is what was said after the model's last turn.
    for head in heads.values():
        for message in _new_messages(head):
            yield from _judged_texts(message)


def _about(shown: LabelledSegment, head: EventHead | None) -> Iterator[tuple[str, int]]:
    """The message that an excerpt is of, or the excerpt, where users and tools said it."""
    messages = (*head.messages, *head.output) if head is not None else ()
    if 0 <= shown.message_index < len(messages):
        texts = list(_judged_texts(messages[shown.message_index]))
        if len(texts) <= _WHOLE_SEGMENTS:
            yield from texts
            return
        words = plain(shown.text)
        at = [i for i, text in enumerate(texts) if words and plain(text[0]).startswith(words[:80])]
        if at:
            yield from texts[max(at[0] - _AROUND, 0) : at[0] + _AROUND + 1]
            return
    if shown.role in ("user", "tool") and shown.text.strip():
        yield shown.text, TOOL if shown.role == "tool" else USER


def _judged_texts(message: MessageHead) -> Iterator[tuple[str, int]]:
    content = segmented(message)
    for text, role in zip(content.texts, content.roles.tolist(), strict=True):
        if role in JUDGED:
            yield text, role


def _new_messages(head: EventHead) -> list[MessageHead]:
    last = max((at for at, message in enumerate(head.messages) if message.role == "assistant"), default=-1)
    return head.messages[last + 1 :]
