"""Redaction: secrets and personal data out of a message before anything is stored.

It is deterministic, and idempotent: what has been redacted stays as it is. RE2 answers in time linear in the text,
whatever the text; `docs/decisions/0003-redaction.md` has the figures.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from typing import Any

import re2  # type: ignore[import-untyped]

from stream.steps.redact_rules import JSON_ONLY, PHONE_NAME, PLACEHOLDER, RULES, SECRET_NAME, Rule

POLICIES = ("standard", "secrets", "none")

_PASSES_MAX = 8
_SHORTEST = 6
"""Characters of the shortest text that a rule could meet: `a@b.cd`."""
Counts = dict[str, int]
"""How often each kind was replaced."""


class Redactor:
    """Replaces what a policy names with typed placeholders.

    Parameters
    ----------
    policy
        `standard`: secrets, e-mail and IP addresses, telephone, card and account numbers (IBAN); `secrets`: secrets
        alone; `none`: nothing.

    >>> counts: Counts = {}
    >>> Redactor("standard").text("Write to ann@example.org, password: hunter2", counts), counts
    ('Write to [EMAIL], password: [PASSWORD]', {'password': 1, 'email': 1})
    """

    def __init__(self, policy: str = "standard") -> None:
        if policy not in POLICIES:
            raise ValueError(f"redaction.policy must be one of {', '.join(POLICIES)}; got {policy!r}")
        self.policy = policy
        self._personal = policy == "standard"
        self._rules, self._compiled, self._match = _compile(policy)

    def text(self, text: str, counts: Counts) -> str:
        """`text` redacted; JSON stays JSON. `counts` grows by what was replaced."""
        hits = self._match(text.encode())
        if not hits:
            return text
        if text[:1] in ("{", "["):
            try:
                return self._json(_loads(text), text, counts)
            except (ValueError, RecursionError):
                pass
        return self._plain(text, hits, counts)

    def arguments(self, text: str, counts: Counts) -> str:
        """A tool call's arguments, redacted, as JSON text with sorted keys; as plain text when they are no JSON.

        One form for what means the same: clients that parse an answer's arguments send them back written another way.
        """
        try:
            value = _loads(text)
            canonical = _dumps(value)
            return self._json(value, canonical, counts) if self._match(canonical.encode()) else canonical
        except (ValueError, RecursionError):
            return self._plain(text, self._match(text.encode()) or [], counts)

    def identifier(self, text: str, counts: Counts) -> str:
        """An id (of a user, a session), redacted so that different ones stay different: `[EMAIL:<hex of its hash>]`."""
        redacted = self._plain(text, self._match(text.encode()) or [], {})
        if redacted == text:
            return text
        kind = PLACEHOLDER.search(redacted.encode())
        name = kind.group()[1:-1].split(b":")[0].decode() if kind else "SECRET"
        counts[name.lower()] = counts.get(name.lower(), 0) + 1
        return f"[{name}:{sha256(text.strip().lower().encode()).hexdigest()[:12]}]"

    def _plain(self, text: str, hits: list[int], counts: Counts) -> str:
        data = text.encode()
        # A replacement can bring neighbours together, so look again until nothing is found.
        for _ in range(_PASSES_MAX):
            before = data
            for index in sorted(hits):
                if index < len(self._rules):
                    data = _replace(data, self._compiled[index], self._rules[index], counts)
            if data == before:
                break
            hits = self._match(data) or []
        return data.decode()

    def _json(self, value: Any, text: str, counts: Counts) -> str:
        walked = self._walk(value, "", counts)
        return text if walked == value else _dumps(walked)

    def _walk(self, value: Any, name: str, counts: Counts) -> Any:
        if isinstance(value, str):
            if len(value) >= 4 and SECRET_NAME.search(name) and not PLACEHOLDER.fullmatch(value.encode()):
                return _count("password" if "pass" in name.lower() else "secret", counts)
            return value if len(value) < _SHORTEST and value.isascii() else self.text(_whole(value), counts)
        if isinstance(value, dict):
            walked: dict[str, Any] = {}
            for key, item in value.items():
                walked[_free(self.text(_whole(key), counts), walked)] = self._walk(item, key, counts)
            return walked
        if isinstance(value, list):
            return [self._walk(item, name, counts) for item in value]
        if isinstance(value, bool) or value is None:
            return value
        return self._number(value, name, counts)

    def _number(self, value: float, name: str, counts: Counts) -> int | float | str:
        digits = str(abs(value))
        if SECRET_NAME.search(name) and len(digits) >= 4 and "pass" in name.lower():
            return _count("password", counts)
        if not self._personal or not digits.isdecimal():
            return value
        if 7 <= len(digits) <= 15 and PHONE_NAME.match(name):
            return _count("phone", counts)
        redacted = self.text(digits, counts) if len(digits) >= 12 else digits
        return value if redacted == digits else redacted


@cache
def _compile(policy: str) -> tuple[list[Rule], list[Any], Callable[[bytes], list[int] | None]]:
    """A policy's rules, each as RE2 compiled it, and what tells which of them a text meets (None: none of them).

    All redactors of a policy share one automaton, which grows as it meets texts.
    """
    rules = [rule for rule in RULES if policy == "standard" or (policy == "secrets" and rule.secret)]
    if not rules:
        return [], [], lambda _: None
    options = re2.Options()
    # A set whose automaton does not fit reports no match at all; this many bytes hold it many times over.
    options.max_mem = 64 << 20
    found = re2.Set.SearchSet(options)
    for pattern in (*(rule.pattern for rule in rules), *JSON_ONLY):
        found.Add(pattern)
    found.Compile()
    return rules, [re2.compile(rule.pattern) for rule in rules], found.Match


def _replace(data: bytes, compiled: Any, rule: Rule, counts: Counts) -> bytes:
    pieces = []
    end = 0
    for match in compiled.finditer(data):
        start, stop = match.span(rule.group)
        if rule.accept is None or rule.accept(data, start, stop):
            pieces += [data[end:start], rule.placeholder]
            end = stop
            counts[rule.kind] = counts.get(rule.kind, 0) + 1
    return b"".join([*pieces, data[end:]]) if pieces else data


def _count(kind: str, counts: Counts) -> str:
    counts[kind] = counts.get(kind, 0) + 1
    return f"[{kind.upper()}]"


def _free(key: str, taken: dict[str, Any]) -> str:
    """`key`, numbered when redaction made two keys equal."""
    if key not in taken:
        return key
    number = 2
    while f"{key} ({number})" in taken:
        number += 1
    return f"{key} ({number})"


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        # Which of two equal keys a tool reads is its own affair: keep both, as text.
        raise ValueError("duplicate keys")
    return found


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


_loads = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_refuse).decode
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")).encode


def _dumps(value: Any) -> str:
    return _whole(_encode(value))


def _whole(text: str) -> str:
    """`text` without halves of surrogate pairs: JSON can escape them, but no UTF-8 can hold them."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
