"""What took effect before which offset of a partition, read back so that a replay repeats it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from schemas.journal import Journal
from schemas.undecodable import UNDECODABLE
from stream.config import Settings
from stream.errors import StateError
from stream.inputs import Applied, release_named

_DECODER = msgspec.json.Decoder(Journal)
_WRITTEN_BY = "Replay it with the Tidegate that wrote it, or without: --journal none."

Start = tuple[int, int]
"""Where a partition begins: its first offset, and the number of the first journal entry that is not behind it."""


def read_entries(values: Iterable[tuple[str, bytes]]) -> list[Journal]:
    """Entries of a journal, of each partition in the order in which they took effect.

    An entry that was written twice, as `--delivery at-least-once` may, counts once.

    Parameters
    ----------
    values
        Where each stands, for a message, and its JSON.

    Raises
    ------
    StateError
        When one is no journal entry, or two claim one place.
    """
    entries: dict[tuple[int, int, int], Journal] = {}
    for where, value in values:
        try:
            entry = _DECODER.decode(value)
        except UNDECODABLE as error:
            raise StateError(f"{where} must be a journal entry: {error}. {_WRITTEN_BY}") from error
        place = entry.partition, entry.before_offset, entry.seq
        if entries.setdefault(place, entry) != entry:
            raise StateError(
                f"{where}: partition {entry.partition} already has another entry {entry.seq} before offset "
                f"{entry.before_offset}. Two scorers have written this journal: give each its own --output-prefix."
            )
    return [entries[place] for place in sorted(entries)]


@dataclass(frozen=True, slots=True)
class Served:
    """How a partition is scored: what another core is needed for when it changes."""

    settings: Settings
    release: str

    @property
    def key(self) -> tuple[str, str]:
        """Equal where results are."""
        return self.settings.config_hash, self.release


@dataclass(slots=True)
class JournalPlan:
    """What is still to be repeated in each partition.

    Parameters
    ----------
    settings
        For partitions whose journal does not say what was configured.
    release
        Name of the one for partitions whose journal does not say what was served.
    """

    settings: Settings
    release: str
    _waiting: dict[int, deque[Journal]] = field(default_factory=dict)
    _begun: dict[int, Served] = field(default_factory=dict)
    _moves: dict[int, int] = field(default_factory=dict)
    _releases: set[str] = field(default_factory=set)

    @classmethod
    def of(
        cls,
        settings: Settings,
        entries: Iterable[Journal],
        release: str,
        starts: Mapping[int, Start] | None = None,
        served: Mapping[int, str] | None = None,
    ) -> JournalPlan:
        """The plan of a replay; other releases than the one named may have scored parts of it.

        Parameters
        ----------
        entries
            In order, of any partitions, none beyond what is replayed.
        release
            Name of a release that scored some of it.
        starts
            Where partitions begin; one that is not named begins before its first entry. What lies behind a start tells
            only the configuration and the release.
        served
            Releases that partitions begin with, where a state says so, whatever lies behind their start.

        Raises
        ------
        StateError
            When the release scored none of it, or the configuration is another version's.
        """
        plan = cls(settings, release)
        plan._begun = {partition: Served(settings, name) for partition, name in (served or {}).items()}
        now = dict(served or {})
        scored: dict[str, int] = {}
        for entry in entries:
            partition = entry.partition
            begin, seq = (starts or {}).get(partition, (0, 0))
            named = release_named(entry.kind, entry.value, entry.control_offset)
            if entry.seq < seq if seq else entry.before_offset < begin:
                at = plan.begins(partition)
                if served is not None and partition in served:
                    named = at.release
                plan._begun[partition] = Served(_configured(entry, settings) or at.settings, named or at.release)
            else:
                if entry.before_offset > begin:
                    scored.setdefault(now.get(partition, release), partition)
                plan._waiting.setdefault(partition, deque()).append(entry)
                if _moves(entry):
                    plan._moves[partition] = plan._moves.get(partition, 0) + 1
            now[partition] = named or now.get(partition, release)
        for partition, name in sorted(now.items()):
            scored.setdefault(name, partition)
        if scored and release not in scored:
            _refuse(*min((partition, name) for name, partition in scored.items()), release)
        plan._releases = set(scored) | {release}
        return plan

    @property
    def releases(self) -> list[str]:
        """Names of all that scored what is replayed."""
        return sorted(self._releases)

    def begins(self, partition: int) -> Served:
        """What the partition begins with."""
        return self._begun.get(partition, Served(self.settings, self.release))

    def due(self, partition: int, offset: int) -> bool:
        """Whether something took effect in the partition before this offset that has not been repeated yet."""
        waiting = self._waiting.get(partition)
        return waiting is not None and len(waiting) > 0 and waiting[0].before_offset <= offset

    def before(self, partition: int) -> int:
        """The offset before which the next entry took effect."""
        return self._waiting[partition][0].before_offset

    def take(self, partition: int) -> tuple[Applied, Settings | None, str | None]:
        """The next entry as a control, what it configures, and which release it puts into service, if it does."""
        entry = self._waiting[partition].popleft()
        control = Applied(partition, entry.kind, entry.value, entry.control_offset)
        if _moves(entry):
            self._moves[partition] -= 1
        named = release_named(entry.kind, entry.value, entry.control_offset)
        return control, _configured(entry, self.settings), named

    def left(self) -> list[int]:
        """Partitions in which something is left to be repeated."""
        return [partition for partition, waiting in sorted(self._waiting.items()) if waiting]

    def moves(self, partition: int) -> bool:
        """Whether what is left changes the partition's configuration or release."""
        return self._moves.get(partition, 0) > 0


def _refuse(partition: int, served: str, release: str) -> None:
    raise StateError(
        f"the journal says that release {served!r} scored partition {partition}; got {release!r}. "
        f"Give --release the directory of {served!r}, replay only what {release!r} scored (--to-offset, "
        "--from-state), or replay without the journal: --journal none."
    )


def _configuration(entry: Journal) -> Mapping[str, Any] | None:
    config = entry.value.get("config")
    # Of a control from its topic nothing but its release counts, whatever else it says.
    return config if isinstance(config, dict) and entry.kind != "control" else None


def _moves(entry: Journal) -> bool:
    named = release_named(entry.kind, entry.value, entry.control_offset)
    return named is not None or _configuration(entry) is not None


def _configured(entry: Journal, settings: Settings) -> Settings | None:
    config = _configuration(entry)
    return settings.with_determinism(config) if config is not None else None
