"""The project's own goals, phrasings and translations; nothing is trained on them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Lists:
    """What rewrites are made of."""

    goals: tuple[str, ...]
    phrasings: tuple[str, ...]
    """With `{goal}`, or `{rest}` for the goal with a small letter."""
    split_leads: tuple[str, ...]
    """With `{text}`, and perhaps `{part}` and `{parts}`."""
    encoded_leads: tuple[str, ...]
    """With `{text}`, and perhaps `{name}`."""
    languages: dict[str, tuple[tuple[str, ...], tuple[str, ...]]]
    """By code, leads with `{goal}`, and goals; English is not among them."""


@lru_cache(maxsize=1)
def lists() -> Lists:
    """Read from the files beside this one."""
    goals, phrasings, languages = (_read(name) for name in ("goals", "phrasings", "translations"))
    return Lists(
        goals=tuple(goal for own in goals.values() for goal in own),
        phrasings=tuple(phrasings["phrasings"]),
        split_leads=tuple(phrasings["split"]["lead"]),
        encoded_leads=tuple(phrasings["encoded"]["lead"]),
        languages={code: (tuple(own["lead"]), tuple(own["goals"])) for code, own in languages.items() if code != "en"},
    )


def worded(phrasing: str, goal: str) -> str:
    """A goal in a phrasing.

    >>> worded("Please {rest}", "Open the door.")
    'Please open the door.'
    """
    return phrasing.format(goal=goal, rest=goal[:1].lower() + goal[1:])


def _read(name: str) -> dict[str, dict[str, list[str]]]:
    return tomllib.loads((files("evaluation.rewrites") / f"{name}.toml").read_text(encoding="utf-8"))
