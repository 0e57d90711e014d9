"""A few sessions of the sample to learn, and others to judge: enough for every system to say something."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import msgspec

from evaluation.events import Events, events_of
from evaluation.systems.product import Product
from models.embedder import StaticEmbedder
from sample.records import LIVE, TRAIN
from schemas.corpus import CorpusSession
from stream.config import LearningSettings, Settings
from stream.training.effort import Effort
from stream.training.gather import sessions_of

SETTINGS = Settings(learning=LearningSettings(grace_sessions=5))
QUICK = Effort(epochs=1, steps_min=8, adapter_steps=8, passes=2, splices=0.1)
TENANTS = ("dojogt-banking", "dojogt-workspace", "mint-math", "rapidapi-assistant")
LEARNED_EACH, JUDGED_EACH = 14, 5


@cache
def embedder() -> StaticEmbedder:
    return StaticEmbedder.load(device="cpu")


@cache
def learned() -> Events:
    return events_of(_some(list(sessions_of(TRAIN)), LEARNED_EACH, "benign"), SETTINGS)


@cache
def judged() -> Events:
    """Benign sessions, and attacks."""
    return events_of(judged_sessions(), SETTINGS)


@cache
def judged_sessions() -> list[CorpusSession]:
    live = list(sessions_of(LIVE))
    chosen = [*_some(live, JUDGED_EACH, "benign"), *_some(live, JUDGED_EACH, "attack")]
    return sorted(chosen, key=lambda session: session.start_ms or 0)


@cache
def product() -> Product:
    """One that has learned."""
    made = Product(SETTINGS, embedder(), effort=QUICK)
    made.fit(learned(), 1, ())
    return made


def later(session: CorpusSession, ms: int) -> CorpusSession:
    """The session at another time."""
    assert session.start_ms is not None
    calls_ms = tuple(at + ms for at in session.calls_ms)
    return msgspec.structs.replace(session, start_ms=session.start_ms + ms, calls_ms=calls_ms)


def _some(sessions: Sequence[CorpusSession], each: int, label: str) -> list[CorpusSession]:
    chosen: list[CorpusSession] = []
    for tenant in TENANTS:
        chosen += [s for s in sessions if s.tenant == tenant and s.label == label][:each]
    return sorted(chosen, key=lambda session: session.start_ms or 0)
