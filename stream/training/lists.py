"""`written/*.toml`: texts that were written for this project, for models to learn beside tenants' traffic.

A file is `<what>_<language>.toml`; its tables say what its lists hold, whatever the lists are called.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from itertools import chain

ATTACKS = ("injection", "jailbreak", "prompt_extraction")
"""Tables of attacks, each named as `models.attack_classifier.CLASSES` has it."""


@dataclass(frozen=True, slots=True)
class Lists:
    """What one language's files hold."""

    requests: list[str] = field(default_factory=list)
    """Clauses without a full stop, with a capital letter where the language has them."""
    framings: list[str] = field(default_factory=list)
    """With `{request}`, or `{rest}` for one with a small letter; some with `{other}` or `{other_rest}` beside it."""
    texts: list[str] = field(default_factory=list)
    """What tools return."""
    formulas: list[str] = field(default_factory=list)
    """What letters and papers are put together from, whatever they are about; tools return it too."""
    attacks: dict[str, list[str]] = field(default_factory=dict)
    """By table of `ATTACKS`: what attackers write, some with `{goal}`."""
    goals: list[str] = field(default_factory=list)
    """Clauses: what attackers want to hear."""
    harmless: list[str] = field(default_factory=list)
    """What users write who are taken for attackers."""
    tasks: list[str] = field(default_factory=list)
    """What users ask of agents and services, in words that attacks use too."""
    delegating: list[str] = field(default_factory=list)
    """Requests that hand an agent over to what a text says."""
    spelled_out: list[str] = field(default_factory=list)
    """Requests that sound like them, in which the user says in full what is to be done."""


@cache
def languages() -> dict[str, Lists]:
    """The lists by language, in the order of the files' names."""
    found: dict[str, Lists] = {}
    for file in sorted(files("stream.training").joinpath("written").iterdir(), key=lambda file: file.name):
        if not file.name.endswith(".toml"):
            continue
        _, _, language = file.name.removesuffix(".toml").rpartition("_")
        lists = found.setdefault(language, Lists())
        into = {
            "requests": lists.requests,
            "framings": lists.framings,
            "texts": lists.texts,
            "formulas": lists.formulas,
            "goals": lists.goals,
            "harmless": lists.harmless,
            "tasks": lists.tasks,
            "delegating": lists.delegating,
            "spelled_out": lists.spelled_out,
        }
        into |= {name: lists.attacks.setdefault(name, []) for name in ATTACKS}
        for table, own in tomllib.loads(file.read_text("utf-8")).items():
            if table not in into:
                raise ValueError(f"{file.name}: no table is called {table}; use one of {', '.join(into)}.")
            into[table].extend(chain.from_iterable(own.values()))
    return found
