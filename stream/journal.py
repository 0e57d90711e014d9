"""What took effect before which offset of a partition, read back so that a replay repeats it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from schemas.journal import Journal
from stream.config import Settings
from stream.errors import StateError
from stream.inputs import Applied

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
        except msgspec.DecodeError as error:
            raise StateError(f"{where} must be a journal entry: {error}. {_WRITTEN_BY}") from error
        place = entry.partition, entry.before_offset, entry.seq
        if entries.setdefault(place, entry) != entry:
            raise StateError(
                f"{where}: partition {entry.partition} already has another entry {entry.seq} before offset "
                f"{entry.before_offset}. Two scorers have written this journal: give each its own --output-prefix."
            )
    return [entries[place] for place in sorted(entries)]


@dataclass(slots=True)
class JournalPlan:
    """What is still to be repeated in each partition.

    Parameters
    ----------
    settings
        For partitions whose journal does not say what was configured.
    """

    settings: Settings
    _waiting: dict[int, deque[Journal]] = field(default_factory=dict)
    _begun: dict[int, Settings] = field(default_factory=dict)
    _configurations: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls, settings: Settings, entries: Iterable[Journal], release: str, starts: Mapping[int, Start] | None = None
    ) -> JournalPlan:
        """The plan of a replay with one release.

        Parameters
        ----------
        entries
            In order, of any partitions, none beyond what is replayed.
        release
            Name of the release that will score.
        starts
            Where partitions begin; one that is not named begins before its first entry. What lies behind a start tells
            only the configuration.

        Raises
        ------
        StateError
            When another release was in service, or the configuration is another version's.
        """
        plan = cls(settings)
        served: dict[int, str] = {}
        for entry in entries:
            partition = entry.partition
            begin, seq = (starts or {}).get(partition, (0, 0))
            if entry.seq < seq if seq else entry.before_offset < begin:
                plan._begun[partition] = _configured(entry, settings) or plan.settings_of(partition)
            else:
                if entry.before_offset > begin:
                    _check_served(partition, served.get(partition, release), release)
                plan._waiting.setdefault(partition, deque()).append(entry)
                if _configuration(entry) is not None:
                    plan._configurations[partition] = plan._configurations.get(partition, 0) + 1
            served[partition] = _release_of(entry) or served.get(partition, release)
        for partition, named in sorted(served.items()):
            _check_served(partition, named, release)
        return plan

    def settings_of(self, partition: int) -> Settings:
        """What the partition begins with."""
        return self._begun.get(partition, self.settings)

    def due(self, partition: int, offset: int) -> bool:
        """Whether something took effect in the partition before this offset that has not been repeated yet."""
        waiting = self._waiting.get(partition)
        return waiting is not None and len(waiting) > 0 and waiting[0].before_offset <= offset

    def before(self, partition: int) -> int:
        """The offset before which the next entry took effect."""
        return self._waiting[partition][0].before_offset

    def take(self, partition: int) -> tuple[Applied, Settings | None]:
        """The next entry as a control, and what it configures, if it does."""
        entry = self._waiting[partition].popleft()
        control = Applied(partition, entry.kind, entry.value, entry.control_offset)
        configured = _configured(entry, self.settings)
        if configured is not None:
            self._configurations[partition] -= 1
        return control, configured

    def left(self) -> list[int]:
        """Partitions in which something is left to be repeated."""
        return [partition for partition, waiting in sorted(self._waiting.items()) if waiting]

    def reconfigures(self, partition: int) -> bool:
        """Whether what is left changes the partition's configuration."""
        return self._configurations.get(partition, 0) > 0


def _check_served(partition: int, served: str, release: str) -> None:
    if served != release:
        raise StateError(
            f"the journal says that release {served!r} scored partition {partition}; got {release!r}. "
            f"Give --release the directory of {served!r}, replay only what {release!r} scored (--to-offset, "
            "--from-state), or replay without the journal: --journal none."
        )


def _release_of(entry: Journal) -> str | None:
    named = entry.value.get("release")
    within = entry.value.get("value")
    if named is None and entry.value.get("kind") == "release" and isinstance(within, dict):
        # A control from its topic, as it lay there.
        named = within.get("release")
    return str(named) if named is not None else None


def _configuration(entry: Journal) -> Mapping[str, Any] | None:
    config = entry.value.get("config")
    return config if isinstance(config, dict) else None


def _configured(entry: Journal, settings: Settings) -> Settings | None:
    config = _configuration(entry)
    return settings.with_determinism(config) if config is not None else None
