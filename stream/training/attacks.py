"""Labelled attacks of corpus files -> the segments that a classifier of known attacks learns from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from models.attack_classifier import CLASSES
from models.wordpiece import TokenBags
from schemas.corpus import CorpusSession, calls
from schemas.corpus_records import to_native
from schemas.corpus_timeline import UNDATED_START_MS
from stream.config import Settings
from stream.record import Record
from stream.steps.content import JUDGED, Embeds, segmented
from stream.steps.decode import decode
from stream.training.gather import ingest_step, sessions_of

ATTACK = "attack"
_UNPLACED = "unplaced"
"""Tenant of an attack that has none."""


@dataclass(frozen=True, slots=True)
class AttackTexts:
    """Segments (s) of attacks, redacted as ingest does."""

    bags: TokenBags
    labels: NDArray[np.bool_]
    """(s, c) classes."""
    source: list[str]
    """(s,) where each comes from."""
    group: list[str]
    """(s,) sessions: their segments belong together."""

    @classmethod
    def none(cls) -> AttackTexts:
        """No segments."""
        bags = TokenBags(np.zeros(0, np.uint16), np.zeros(1, np.int64))
        return cls(bags, np.zeros((0, len(CLASSES)), np.bool_), [], [])


def joined(first: AttackTexts | None, second: AttackTexts | None) -> AttackTexts | None:
    """Segments of both; None where there are none."""
    if first is None or second is None:
        return first if second is None else second
    return AttackTexts(
        TokenBags(
            np.concatenate([first.bags.ids, second.bags.ids]),
            np.concatenate([first.bags.offsets, first.bags.offsets[-1] + second.bags.offsets[1:]]),
        ),
        np.concatenate([first.labels, second.labels]),
        [*first.source, *second.source],
        [*first.group, *second.group],
    )


def collect_attacks(paths: Sequence[Path], embedder: Embeds, settings: Settings) -> AttackTexts | None:
    """Segments of the labelled attacks in corpus files; None where there are none.

    Raises
    ------
    UsageError
        When a file cannot be read.
    """
    return attack_texts(_sessions(paths), embedder, settings)


def attack_texts(sessions: Iterable[CorpusSession], embedder: Embeds, settings: Settings) -> AttackTexts | None:
    """Segments of the labelled attacks among `sessions`; None where there are none.

    Of a session that marks which messages carry its attack, those alone; of others what users and tools said.
    """
    # The classes belong to the fit, which takes a second to import.
    from models.training.attack_classifier import attack_classes

    texts: list[str] = []
    labels: list[tuple[bool, ...]] = []
    source: list[str] = []
    group: list[str] = []
    for session, said in _attacks(sessions, settings):
        texts += said
        labels += [attack_classes(session.attack_family, text) for text in said]
        source += [session.source or ""] * len(said)
        group += [session.session] * len(said)
    if not texts:
        return None
    return AttackTexts(embedder.encode(texts), np.array(labels, np.bool_), source, group)


def attack_sessions(paths: Sequence[Path], settings: Settings) -> Iterator[tuple[CorpusSession, list[str]]]:
    """The labelled attacks in corpus files, each with its segments as `attack_texts` takes them.

    Raises
    ------
    UsageError
        When a file cannot be read.
    """
    return _attacks(_sessions(paths), settings)


def _sessions(paths: Sequence[Path]) -> Iterator[CorpusSession]:
    return chain.from_iterable(map(sessions_of, paths))


def _attacks(sessions: Iterable[CorpusSession], settings: Settings) -> Iterator[tuple[CorpusSession, list[str]]]:
    for session in sessions:
        if session.label == ATTACK:
            yield session, list(_segments(session, settings))


def _segments(session: CorpusSession, settings: Settings) -> Iterator[str]:
    marked = [turn for turn in session.turns if turn.payload]
    shown = msgspec.structs.replace(
        session,
        tenant=session.tenant or _UNPLACED,
        turns=tuple(marked or [turn for turn in session.turns if turn.role in ("user", "tool")]),
    )
    last = calls(shown)[-1:]
    records = [
        Record("corpus", 0, call.index, UNDATED_START_MS, None, orjson.dumps(to_native(shown, call, UNDATED_START_MS)))
        for call in last
    ]
    events = ingest_step(settings, "native").step(records).events
    batch, _ = decode(
        [Record("corpus", event.partition, 0, UNDATED_START_MS, event.key, event.value) for event in events],
        settings.core.future_ms,
    )
    for head in batch.heads:
        for message in head.messages:
            content = segmented(message)
            yield from (
                text for text, role in zip(content.texts, content.roles.tolist(), strict=True) if role in JUDGED
            )
