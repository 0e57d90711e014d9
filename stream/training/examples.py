"""What attackers write to a model, and what is harmless however it sounds: examples for every classifier.

Nobody has labelled an attack on the day a gateway is connected. So the classifier of known attacks learns from
`written/*.toml` too: jailbreaks, overrides of instructions and requests for the prompt, each in many wordings, against
harmless messages in the same words and forms, requests to agents, and what tools return. The lists were written for
this project; evaluation judges none of them, and what analysts label is learned beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.attack_classifier import CLASSES
from models.segments import split
from models.text_models import TextModels
from models.wordpiece import TokenBags
from stream.state.schema import KINDS, KNOWN_ATTACK, TOOL_KNOWN_ATTACK
from stream.steps.content import Embeds
from stream.steps.likeness import likest
from stream.steps.redact import Redactor
from stream.training.events import FOLDS
from stream.training.lists import Lists, languages
from stream.training.voices import worded

TELLINGS = 2
"""How often a text that leaves the goal open is told, each time with another one."""
ATTACK, LOOK_ALIKE, REQUEST, TASK, RETURNED = range(5)
"""Kinds of messages: the last four are harmless, three of users and one of tools."""
_GOAL = "{goal}"


Likenesses = Mapping[str, NDArray[np.float64]]
"""By the name of a signal, its values (m,) of harmless messages."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Segments (s) of written messages."""

    bags: TokenBags
    labels: NDArray[np.bool_]
    """(s, c) classes; harmless ones have none."""
    kind: NDArray[np.int8]
    """(s,) `ATTACK`, `LOOK_ALIKE`, `REQUEST`, `TASK` or `RETURNED`."""
    group: NDArray[np.int64]
    """(s,) messages, by what is written: told with other goals it is the same."""
    chars: NDArray[np.float32]
    """(s,)"""
    vectors: NDArray[np.int8]
    """(s, d) unit rows times 127."""

    def without(self, fold: int | None) -> Examples:
        """What that fold does not hold out: of harmless messages one in `FOLDS`, of attacks none; for None all."""
        return self if fold is None else self._taken(~self._held_out(fold))

    def held_out(self, fold: int) -> Examples:
        """Harmless messages that the fold holds out."""
        return self._taken(self._held_out(fold))

    def of(self, kind: int) -> Examples:
        """Those of one kind."""
        return self._taken(self.kind == kind)

    def _held_out(self, fold: int) -> NDArray[np.bool_]:
        held_out: NDArray[np.bool_] = (self.kind != ATTACK) & (self.group % FOLDS == fold)
        return held_out

    def _taken(self, chosen: NDArray[np.bool_]) -> Examples:
        rows = np.flatnonzero(chosen)
        return Examples(
            self.bags.take(rows),
            self.labels[rows],
            self.kind[rows],
            self.group[rows],
            self.chars[rows],
            self.vectors[rows],
        )


def examples(embedder: Embeds, policy: str, *, seed: int) -> Examples:
    """All that is written, redacted by `policy` as traffic is, and cut into segments as it stands there."""
    # The classes belong to the fit, which takes a second to import.
    from models.training.attack_classifier import attack_classes

    redactor, rng = Redactor(policy), np.random.default_rng(seed)
    texts: list[str] = []
    labels: list[tuple[bool, ...]] = []
    kinds: list[int] = []
    groups: list[int] = []
    for group, (kind, family, told) in enumerate(_told(languages().values(), rng)):
        own = [segment for text in told for segment in split(redactor.text(text, {}))]
        texts += own
        labels += [attack_classes(family, text) if family else (False,) * len(CLASSES) for text in own]
        kinds += [kind] * len(own)
        groups += [group] * len(own)
    bags = embedder.encode(texts)
    return Examples(
        bags,
        np.array(labels, np.bool_),
        np.array(kinds, np.int8),
        np.array(groups, np.int64),
        np.array([len(text) for text in texts], np.float32),
        embedder.embed_int8(texts, bags),
    )


def likenesses(models: TextModels, written: Examples) -> Likenesses:
    """`known_attack` of look-alikes and `tool_known_attack` of what tools return; of none without a classifier."""
    return {
        KINDS[signal]: likeness(models, written.of(kind))
        for kind, signal in ((LOOK_ALIKE, KNOWN_ATTACK), (RETURNED, TOOL_KNOWN_ATTACK))
    }


def likeness(models: TextModels, written: Examples) -> NDArray[np.float64]:
    """How like attacks each message (m,) is, as the signals have it; of none without a classifier."""
    if models.attacks is None or len(written.group) == 0:
        return np.zeros(0)
    odds = models.known(written.bags, written.vectors).max(axis=1)
    message = np.unique(written.group, return_inverse=True)[1]
    signals = np.full((int(message.max()) + 1, len(KINDS)), np.nan)
    likest(signals, message, np.full(len(message), KNOWN_ATTACK), odds, written.chars)
    return signals[:, KNOWN_ATTACK]


def _told(read: Iterable[Lists], rng: np.random.Generator) -> Iterator[tuple[int, str, list[str]]]:
    """Each message's kind, its family where it is an attack, and its tellings."""
    for lists in read:
        for family, texts in lists.attacks.items():
            for text in texts:
                some = rng.permutation(len(lists.goals))[:TELLINGS] if _GOAL in text else ()
                yield ATTACK, family, [text.replace(_GOAL, lists.goals[at]) for at in some] or [text]
        yield from ((LOOK_ALIKE, "", [text]) for text in lists.harmless)
        yield from ((REQUEST, "", told) for told in worded(lists, rng))
        yield from ((TASK, "", [text]) for text in (*lists.tasks, *lists.delegating, *lists.spelled_out))
        yield from ((RETURNED, "", [text]) for text in (*lists.texts, *lists.formulas))
