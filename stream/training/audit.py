"""Whether labels can be believed: each is held against what all others say of text like it, and so is each analyst."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.label import Label
from stream.config import GateSettings
from stream.steps.content import Embeds


@dataclass(frozen=True, slots=True)
class Known:
    """Documents (d) whose truth does not rest on the labels in question: earlier labels, traffic taken for benign."""

    texts: Sequence[Sequence[str]]
    """(d,) segments of each."""
    attack: NDArray[np.bool_]
    """(d,)"""
    group: Sequence[str]
    """(d,) session or task: what belongs together."""


class Analyst(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of one analyst's labels."""

    analyst: str
    verified: bool
    """Whether signatures proved the name, of all labels."""
    labels: int
    """Labels that teach and have text."""
    contradicted: int
    """By what all others say of text like theirs."""
    benign_for_attack: int
    """Of the contradicted: called benign where the others see an attack."""
    shared: int
    """Labels on findings that others have labelled too, or on nearly equal text."""
    disagreed: int
    """Of those: where the others' majority says the opposite."""
    p_value: float
    """That chance alone lifts the analyst so far above the others."""
    set_aside: str | None = None
    """Why nothing is learned from this analyst's labels."""


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """What may be learned from."""

    kept: frozenset[bytes]
    """Keys (`label_key`) of labels that teach, of analysts who are believed, and not disputed among those."""
    set_aside: dict[str, str]
    """Analyst -> why, in a sentence."""
    noise: float
    """Share of the labels left that contradict all others; 0 where there are too few to tell."""
    refused: str | None
    """Why nothing at all is learned from the labels, in a sentence."""
    doubted: list[bytes]
    """Kept labels that contradict all others: for a second look. A new kind of attack is among them, too."""
    analysts: list[Analyst]
    figures: dict[str, float]
    """`labels, judged, contradicted, disputed, noise, analysts, analysts_set_aside`."""


def audit(
    labels: Sequence[Label],
    texts_of: Callable[[Label], Sequence[str]],
    embedder: Embeds,
    *,
    seed: int,
    settings: GateSettings,
    known: Known | None = None,
    group_of: Callable[[Label], str] = lambda label: label.session or label.entity,
) -> Audit:
    """Hold every label against all others, set analysts aside who contradict them, and refuse what is left if it is noise."""
    raise NotImplementedError
