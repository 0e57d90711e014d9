"""Labelled attacks that a classifier of known attacks may learn from: neither its source nor its family is judged."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from zlib import crc32

from evaluation.corpus import ATTACK, Corpus
from evaluation.draws import rank
from evaluation.injection import family_of
from evaluation.spans import words_of
from evaluation.trial import Trial
from schemas.corpus import CorpusSession

_SHINGLE = 6
"""Words in a row that two texts share when one was made of the other."""
_ONE_IN = 4
"""Shingles are compared by a sample: those whose hash is divisible by this, of whichever text."""
_SAMPLED_MIN = 3
_ALIKE = 0.5
"""Share of a text's sampled shingles that another source has too, from which on it is a near-duplicate of that."""
_SHARE = 0.02
"""Of a source's sessions that are near-duplicates of another source's: from there on the two are one, told twice."""


@lru_cache(maxsize=2)
def attack_groups(corpus: Corpus) -> dict[str, int]:
    """The group of each family of attacks; what is of two groups has neither family nor source in common.

    Families that share a source are of one group, and so are those of sources that share near-duplicate texts.
    """
    sessions = _attacks(corpus)
    head: dict[str, str] = {}

    def top(name: str) -> str:
        while head.setdefault(name, name) != name:
            name = head[name]
        return name

    for one, other in _twins(sessions):
        head[top(one)] = top(other)
    for session in sessions:
        head[top(f"family {family_of(session)}")] = top(_source(session))
    families = sorted({family_of(session) for session in sessions})
    tops = {family: top(f"family {family}") for family in families}
    numbers = {name: at for at, name in enumerate(sorted(set(tops.values())))}
    return {family: numbers[name] for family, name in tops.items()}


def apart(corpus: Corpus, families: Iterable[str]) -> tuple[CorpusSession, ...]:
    """All labelled attacks of groups of which none of `families` is."""
    groups = attack_groups(corpus)
    taken = {groups[family] for family in families}
    return tuple(session for session in _attacks(corpus) if groups[family_of(session)] not in taken)


def folds(trial: Trial, corpus: Corpus, count: int = 3) -> list[Trial]:
    """`trial` dealt so that each of its attacks is judged by a classifier that saw neither its family nor its source.

    Each probe is in exactly one of the trials; benign ones are dealt by cluster. Empty where all attacks of the corpus
    are of one group, as nothing would be left to learn from.

    Parameters
    ----------
    count
        Folds at most; there are no more than groups that are judged. One is enough where others than those exist.
    """
    groups = attack_groups(corpus)
    group = [groups[_original(probe.family, groups)] if probe.label == ATTACK else None for probe in trial.probes]
    judged = Counter(each for each in group if each is not None)
    if not judged or len(set(groups.values())) < 2:
        return []
    others = len(set(groups.values())) > len(judged)
    loads = [0] * max(1 if others else 2, min(count, len(judged)))
    fold_of: dict[int, int] = {}
    for attacked, size in judged.most_common():
        fold_of[attacked] = loads.index(min(loads))
        loads[fold_of[attacked]] += size
    dealt: list[list[int]] = [[] for _ in loads]
    for at, (probe, each) in enumerate(zip(trial.probes, group, strict=True)):
        fold = rank("fold", trial.seed, probe.cluster) % len(loads) if each is None else fold_of[each]
        dealt[fold].append(at)
    made = []
    for rows in dealt:
        own = [trial.probes[at] for at in rows]
        attacks = apart(corpus, {_original(probe.family, groups) for probe in own if probe.label == ATTACK})
        made.append(replace(trial, probes=tuple(own), attacks=attacks))
    return made


def _original(family: str, groups: dict[str, int]) -> str:
    """The corpus's name of a family, without what a protocol has added."""
    while family not in groups and "+" in family:
        family = family.rpartition("+")[0]
    return family


def _attacks(corpus: Corpus) -> list[CorpusSession]:
    return [session for session in corpus.sessions if session.label == ATTACK]


def _source(session: CorpusSession) -> str:
    return f"source {session.source}" if session.source else f"source of {family_of(session)}"


def _twins(sessions: Sequence[CorpusSession]) -> list[tuple[str, str]]:
    """Pairs of sources that share near-duplicate texts."""
    sources = [_source(session) for session in sessions]
    samples = [_sample(session) for session in sessions]
    holders: dict[int, set[str]] = defaultdict(set)
    for source, sample in zip(sources, samples, strict=True):
        for shingle in sample:
            holders[shingle].add(source)
    alike: Counter[tuple[str, str]] = Counter()
    for source, sample in zip(sources, samples, strict=True):
        others = Counter(other for shingle in sample for other in holders[shingle] if other != source)
        enough = max(_SAMPLED_MIN, _ALIKE * len(sample))
        alike.update((source, other) for other, count in others.items() if count >= enough)
    sizes = Counter(sources)
    return sorted(pair for pair, count in alike.items() if count >= _SHARE * sizes[pair[0]])


def _sample(session: CorpusSession) -> set[int]:
    marked = [turn for turn in session.turns if turn.payload]
    texts = [turn.text for turn in marked or session.turns if turn.role in ("user", "tool")]
    words = [word.encode("utf-8", "surrogatepass") for text in texts for word in words_of(text).words]
    shingles = {crc32(b" ".join(words[at : at + _SHINGLE])) for at in range(max(1, len(words) - _SHINGLE + 1))}
    return {shingle for shingle in shingles if shingle % _ONE_IN == 0}
