"""What one run of a protocol shows its systems: sessions to learn from, and sessions to judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from schemas.corpus import CorpusSession

Label = Literal["benign", "attack", "control"]
"""A control is harmless text in an attack's place: whoever flags it flags what is foreign, not what is an attack."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A session that is judged."""

    session: CorpusSession
    """Placed: it has a tenant, and a name that no other session of its tenant has in this trial."""
    label: Label
    family: str
    """The attack's, with the rewrite's suffix (`<family>+goal`); `ctrl`, or what hides in it, for a control or a benign
    probe that stands for something; empty for plain benign sessions."""
    cluster: str
    """Sessions that are one conversation told again share it, whichever tenants hold it: what a bootstrap draws."""
    obeyed: bool | None = None
    """Whether the agent did what an injection asked for; None where that cannot be told, and for all else."""
    placed: tuple[str, ...] = ()
    """What an attack put into a message of its session, if it is known: what a finding of it should show."""
    slices: Mapping[str, str] = field(default_factory=dict)
    """Slice -> value, such as `language: de`."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One seed's data of one protocol or of several."""

    protocol: str
    """Name of `--only`."""
    seed: int
    learn: Sequence[CorpusSession]
    """Benign; placed, with `start_ms`, in the order of time. No probe's cluster is among theirs."""
    probes: Sequence[Probe]
    attacks: Sequence[CorpusSession] = ()
    """Labelled ones that a classifier of known attacks may learn from; no family or source of a probe's is among them.
    Every other system learns without."""
    figures: Mapping[str, int] = field(default_factory=dict)
    """What was counted while it was made: injections left out for want of a clean twin, and the like."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """A protocol for which a corpus has nothing."""

    protocol: str
    reason: str
