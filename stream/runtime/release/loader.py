"""Releases that a control asks for: loaded beside the scoring, refused with a reason, and the last ones kept."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any, Literal, Protocol

from schemas.control import ReleaseSwitch
from stream.runtime.faults import backoffs

_LOG = logging.getLogger(__name__)

Reason = Literal["missing", "unsigned", "mismatch", "damaged", "incompatible", "unreadable", "failed"]
"""Why a release is refused: not there; nobody who is trusted vouches for it; not the one that was announced; files that
are not as its manifest says; made for another embedder or other state; a control that says nothing; a bug."""

MISSING_SECONDS = 30.0
"""How long a directory that is not there is waited for: as long as NFS may believe that a new name does not exist."""
KEPT = 3
"""Releases in memory: the one in service and the two before it, so that a rollback needs no disk."""


class Refused(Exception):
    """A release that is not served.

    Parameters
    ----------
    reason
        As metrics name it.
    message
        What was required, what came, what to do.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Loaded:
    """A release in memory, ready to be served."""

    release: Any
    """What the core takes; nothing of it is looked at here."""
    name: str
    space_id: str
    feature_schema: str
    state_schema: str
    manifest_sha256: str
    verified: bool
    """Whether a trusted key vouches for it."""
    uri: str | None = None
    """Where it was read."""

    @property
    def ids(self) -> tuple[str, str, str]:
        """What must be equal for one release to take over another's state."""
        return self.space_id, self.feature_schema, self.state_schema

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from every other one."""
        return self.name, self.manifest_sha256


class Releases(Protocol):
    """Where releases come from."""

    def announced(self, switch: ReleaseSwitch) -> Loaded:
        """The release that a control asks for; called on a thread of its own.

        Raises
        ------
        Refused
            When it may not be served.
        """

    def named(self, name: str, switch: ReleaseSwitch | None) -> Loaded:
        """The release that was in service before a restart.

        Parameters
        ----------
        switch
            What asked for it, where that is known.

        Raises
        ------
        StateError
            When it cannot be had.
        """


class BackgroundLoader:
    """Loads one release at a time on a thread of its own; asked and answered on the caller's.

    Parameters
    ----------
    load
        As `Releases.announced`.
    missing_seconds
        How long a release that is not there yet is asked for again.
    """

    def __init__(self, load: Callable[[ReleaseSwitch], Loaded], missing_seconds: float = MISSING_SECONDS) -> None:
        self._load = load
        self._missing_seconds = missing_seconds
        self._kept: OrderedDict[tuple[str, str], Loaded] = OrderedDict()
        self._asked: _Asked | None = None

    def keep(self, loaded: Loaded) -> None:
        """Remember what is served now, if it is signed; of all that were, the last `KEPT` stay."""
        if not loaded.verified:
            return
        self._kept[loaded.key] = loaded
        self._kept.move_to_end(loaded.key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    def ask(self, switch: ReleaseSwitch) -> Loaded | Refused | None:
        """The release or why not, None while it is being loaded: to be asked again for the same one.

        Another one that is still being loaded is given up.
        """
        kept = self._kept.get((switch.release, switch.manifest_sha256))
        if kept is not None:
            return kept
        if self._asked is None or self._asked.switch != switch:
            if self._asked is not None:
                self._asked.given_up.set()
            self._asked = _Asked(switch)
            # A daemon: a process that ends does not wait for a disk.
            Thread(target=self._run, args=(self._asked,), name="release-loader", daemon=True).start()
        answer = self._asked.answer
        if answer is not None:
            # Whoever asks for it again, perhaps once it has been repaired, wants it looked at again.
            self._asked = None
        return answer

    def _run(self, asked: _Asked) -> None:
        asked.answer = self._answer(asked)

    def _answer(self, asked: _Asked) -> Loaded | Refused:
        began, name = time.monotonic(), asked.switch.release
        for wait_seconds in backoffs():
            try:
                loaded = self._load(asked.switch)
            except Refused as refused:
                left = began + self._missing_seconds - time.monotonic()
                if refused.reason != "missing" or left <= 0 or asked.given_up.wait(min(wait_seconds, left)):
                    return refused
                _LOG.info("release %s is not there yet; looking again", name)
            # Broad: a control is there for ever, and what ended this process would end every successor too.
            except Exception as error:  # noqa: BLE001
                _LOG.exception("release %s could not be loaded", name)
                return Refused("failed", f"loading failed with {type(error).__name__}: {error}")
            else:
                _LOG.info("release %s loaded in %.2f s", name, time.monotonic() - began)
                return loaded
        raise AssertionError("back-off never ends")


@dataclass(slots=True)
class _Asked:
    """One question; its thread writes the answer, once."""

    switch: ReleaseSwitch
    answer: Loaded | Refused | None = None
    given_up: Event = field(default_factory=Event)
