"""By what any protocol's rows can be cut: how a session is made, and how well its tenant is known."""

from __future__ import annotations

import re
from collections.abc import Sequence

from evaluation.insertion import is_structure
from evaluation.split import Split
from evaluation.trial import Label, Probe
from schemas.corpus import CorpusSession
from stream.training.language import language_of

YOUNG = 50
"""Learned sessions up to which a tenant is young."""
UNKNOWN = "unknown"
_LENGTHS = ((1_000, "under 1,000 characters"), (4_000, "1,000 to 4,000"), (16_000, "4,000 to 16,000"))
_LONGEST = "over 16,000"
_LANGUAGE_CHARS = 4_000
_CODE = re.compile(
    r"^\s*(?:def|class|import|from|public|private|static|function|const|let|var|#include|SELECT|<html|<\?xml)\b"
    r"|[;{}]\s*$",
    re.MULTILINE,
)
_FENCE, _CODE_LINES = "```", 3
"""Either says that there is code."""
_DELEGATES = re.compile(
    r"\bto-?dos?\b|\b(?:follow|carry out|execute|perform|complete|do|handle|process|work through)\b[^.?!]{0,60}"
    r"\b(?:instructions?|tasks?|actions?|steps?|requests?|items|list|what(?:ever)? (?:it|he|she|they|the)\b)"
    r"|\b(?:as|what) (?:it|he|she|they) (?:says?|asks?|wants?|requests?|instructs?)\b|\basked (?:me|for) in\b",
    re.IGNORECASE,
)
"""A request to do what a text says that the agent has yet to read. English only."""
_NAMES = {
    "en": "english",
    "it": "italian",
    "de": "german",
    "fr": "french",
    "es": "spanish",
    "pt": "portuguese",
    "nl": "dutch",
    "zh": "chinese",
    "ja": "japanese",
    "ko": "korean",
    "ru": "cyrillic",
    "uk": "cyrillic",
    "bg": "cyrillic",
    "el": "greek",
    "ar": "arabic",
    "fa": "arabic",
    "ur": "arabic",
    "he": "hebrew",
    "hi": "indic",
    "bn": "indic",
    "ta": "indic",
    "th": "thai",
}
"""What `language_of` calls them."""


def probe_of(
    session: CorpusSession,
    split: Split,
    *,
    label: Label,
    family: str = "",
    cluster: str,
    obeyed: bool | None = None,
    placed: Sequence[str] = (),
    **more: str,
) -> Probe:
    """A placed session as a probe, with its slices and `more` of them."""
    return Probe(session, label, family, cluster, obeyed, tuple(placed), slices_of(session, split) | more)


def slices_of(session: CorpusSession, split: Split) -> dict[str, str]:
    """`length, language, model, turns, tool_calls, structured, request, tenant` of a placed session.

    `turns` counts what users say, `structured` is JSON or code in what users or tools say, `request` tells those that
    delegate (do what the list says), where content cannot tell an order from an injected one; `tenant` is known, young
    (up to `YOUNG` sessions learned) or never seen.
    """
    said = [turn for turn in session.turns if turn.role in ("user", "tool")]
    asked = [turn.text for turn in said if turn.role == "user"]
    return {
        "length": length_of(session),
        "language": _language(session, "\n".join(turn.text for turn in said)[:_LANGUAGE_CHARS]),
        "model": session.model or UNKNOWN,
        "turns": "several" if len(asked) > 1 else "one",
        "tool_calls": _yes(any(turn.tool_calls for turn in session.turns)),
        "structured": _yes(any(_structured(turn.text) for turn in said)),
        "request": "delegates" if any(map(_DELEGATES.search, asked)) else "plain",
        "tenant": _tenant(session, split),
    }


def length_of(session: CorpusSession) -> str:
    """The bucket of a session's characters, those of tool calls included."""
    chars = sum(len(turn.text) + sum(len(call.arguments) for call in turn.tool_calls) for turn in session.turns)
    return next((name for end, name in _LENGTHS if chars < end), _LONGEST)


def _language(session: CorpusSession, sample: str) -> str:
    if not session.lang:
        return language_of(sample)
    told = session.lang.lower()
    return _NAMES.get(re.split(r"[-_]", told)[0], told)


def _structured(text: str) -> bool:
    return is_structure(text) or _FENCE in text or len(_CODE.findall(text)) >= _CODE_LINES


def _tenant(session: CorpusSession, split: Split) -> str:
    count = split.learned.get(session.tenant or "", 0)
    return "never seen" if count == 0 else "young" if count <= YOUNG else "known"


def _yes(what: bool) -> str:
    return "yes" if what else "no"
