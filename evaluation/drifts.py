"""Tenants that change, which is no attack; and some that are led to change, so that an attack will look normal."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np

from evaluation.arrivals import rng
from evaluation.behaviour import (
    FAST_CHARS,
    FLOOD_TIMES,
    LEAKS,
    Material,
    exfiltration_fast,
    flooded,
    leaking,
    token_flood,
)
from evaluation.placing import named
from schemas.corpus import CorpusSession, Turn

Change = Callable[[CorpusSession], CorpusSession]

_SHOP = """You answer customers of a shop in short, friendly sentences. Use the tools that you are given, never guess an
order number, and hand over to a colleague when somebody is upset. Do not promise refunds."""
_ANALYST = """Role: analyst. Work step by step, state your assumptions, and close with a summary of at most three lines.
Numbers carry units. When data is missing, say which, and stop."""
_STAFF = """This assistant is used by trained staff only. Reply with the result first, then the reasons. Cite the tool
that a fact comes from. Dates are written as year, month, day."""
_PROMPTS = (_SHOP, _ANALYST, _STAFF)
"""System prompts of this project, for tenants that take a new one."""
_MORE_MAX = 8_000
"""Characters added to one message by a tenant that says more."""
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|\n+")


@dataclass(frozen=True, slots=True)
class Drift:
    """A tenant that changes something harmless."""

    tenant: str
    what: str
    """`model`, `prompt` or `usage`."""
    at_ms: int
    """From then on its sessions are changed."""


@dataclass(frozen=True, slots=True)
class Poisoning:
    """Somebody who moves a tenant's normal in small steps, then attacks."""

    tenant: str
    what: str
    steps: tuple[str, ...]
    """Sessions, in the order of time."""
    attacks: tuple[str, ...]
    """Sessions at the end."""


@dataclass(frozen=True, slots=True)
class Ramp:
    """What a poisoner's steps are made of: each can be made anew, higher or lower."""

    what: str
    """Of `POISONS`."""
    seed: int
    tenant: str
    material: Material
    attack: CorpusSession | None
    """That words are taken from."""
    origins: Mapping[str, CorpusSession] = field(default_factory=dict)
    """Sessions as they were but for their time, by the names of the steps."""

    def plain(self, name: str) -> CorpusSession:
        """The session of that step with nothing added."""
        return msgspec.structs.replace(self.origins[name], session=name)

    def step(self, session: CorpusSession, level: float) -> CorpusSession | None:
        """The session as a step of a height in (0, 1]; None where it cannot be one."""
        random = rng(self.seed, "poison", self.what, self.tenant, session.session)
        return POISONS[self.what](session, self.material, level, self.attack, random)


def new_model(session: CorpusSession, tenant: str, material: Material, seed: int) -> CorpusSession:
    """The session with a model that no tenant has had."""
    return msgspec.structs.replace(session, model="next-large-2")


def new_prompt(session: CorpusSession, tenant: str, material: Material, seed: int) -> CorpusSession:
    """The session under another system prompt: in the place of its own, or before all else."""
    prompt = Turn("system", _PROMPTS[int(rng(seed, "prompt", tenant).integers(len(_PROMPTS)))])
    return msgspec.structs.replace(session, turns=(prompt, *(t for t in session.turns if t.role != "system")))


def more_said(session: CorpusSession, tenant: str, material: Material, seed: int) -> CorpusSession:
    """The session with about twice the text from its users."""
    random = rng(seed, "usage", tenant, session.session)
    turns, opening = list(session.turns), 0
    first = True
    for at, turn in enumerate(turns):
        opening += len(turn.text) if first else 0
        if turn.role == "user":
            chars = min(max(opening if first else len(turn.text), 100), _MORE_MAX)
            turns[at] = Turn("user", f"{turn.text}\n{material.text(chars, random)}", turn.tool_calls)
            first = False
    return msgspec.structs.replace(session, turns=tuple(turns))


DRIFTS: dict[str, Callable[[CorpusSession, str, Material, int], CorpusSession]] = {
    "model": new_model,
    "prompt": new_prompt,
    "usage": more_said,
}
CALLS_MORE = frozenset({"usage"})
"""Those after which the tenant calls more often: up to twice, as far as sessions are to be had."""

Poison = Callable[[CorpusSession, Material, float, CorpusSession | None, np.random.Generator], CorpusSession | None]


def poison_tokens(
    session: CorpusSession, material: Material, level: float, attack: CorpusSession | None, random: np.random.Generator
) -> CorpusSession | None:
    """A little more text than usual, up to more than half of a flood's on a scale of ratios."""
    if not any(turn.role == "user" for turn in session.turns):
        return None
    return _step(session, flooded(session, material, random, FLOOD_TIMES ** (0.75 * level)))


def poison_arguments(
    session: CorpusSession, material: Material, level: float, attack: CorpusSession | None, random: np.random.Generator
) -> CorpusSession | None:
    """A few calls with arguments a little longer than usual, up to as many and half as long as in an exfiltration."""
    chars, leaks = max(int((FAST_CHARS / 2) ** level), 1), max(round(level * LEAKS), 1)
    turns = leaking(session, material, random, chars, leaks)
    return _step(session, turns) if turns else None


def poison_words(
    session: CorpusSession, material: Material, level: float, attack: CorpusSession | None, random: np.random.Generator
) -> CorpusSession | None:
    """A few of an attack's sentences after what a user says, other ones each time, up to half of all."""
    at = max((i for i, turn in enumerate(session.turns) if turn.role == "user"), default=-1)
    said = sentences(attack) if attack is not None else []
    if at < 0 or not said:
        return None
    count = max(1, round(level * len(said) / 2))
    begins = int(random.integers(len(said) - count + 1))
    turn = session.turns[at]
    mixed = Turn("user", "\n".join((turn.text, *said[begins : begins + count])), turn.tool_calls, payload=True)
    return _step(session, (*session.turns[:at], mixed, *session.turns[at + 1 :]))


POISONS: dict[str, Poison] = {"tokens": poison_tokens, "arguments": poison_arguments, "words": poison_words}
POISON_ATTACKS = {"tokens": token_flood, "arguments": exfiltration_fast}
"""What each prepares; words prepare the attack that they are taken from."""


def sentences(attack: CorpusSession) -> list[str]:
    """What an attack's users say, sentence by sentence."""
    said = "\n".join(turn.text for turn in attack.turns if turn.role == "user")
    return [part.strip() for part in _SENTENCE.split(said) if part.strip()]


def _step(session: CorpusSession, turns: tuple[Turn, ...]) -> CorpusSession:
    return msgspec.structs.replace(named(session, "poison"), turns=turns, calls_ms=())
