"""`hard_negatives`: harmless requests that look harmful, in tenants that do not ask such things."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.corpus import Corpus
from evaluation.draws import pick, rank, spread
from evaluation.placing import learned, placed_on, probed
from evaluation.protocols.session import benign_probes
from evaluation.slicing import probe_of
from evaluation.split import NO_HOSTS, Split, base_of
from evaluation.trial import Nothing, Trial
from schemas.corpus import CorpusSession

NAME = "hard_negatives"
UNSEEN, SEEN = "hard_negative+unseen", "hard_negative+seen"


def hard_negatives(corpus: Corpus, split: Split, *, seen: bool) -> Trial | Nothing:
    """Look-alikes (see `Corpus.look_alikes`) on learned tenants drawn by hash, with benign sessions to set a threshold.

    Half of the look-alikes are judged, at most `Caps.look_alikes`, of as many sources as there are: the same ones
    whether their kind has been seen or not, as the slice `source` says, theirs and of the benign sessions that were
    judged by the same fit. All labelled foreign attacks may be learned by a classifier of those.

    Parameters
    ----------
    seen
        Whether the other half is learned: as benign sessions of tenants, each of one drawn by hash. That takes a fit of
        its own.
    """
    hosts = split.hosts
    if not corpus.look_alikes or not hosts:
        return Nothing(NAME, "there are no harmless look-alikes" if hosts else NO_HOSTS)
    halves: tuple[list[CorpusSession], list[CorpusSession]] = [], []
    for session in corpus.look_alikes:
        halves[rank("look-alike", split.seed, base_of(session)) % 2].append(session)
    judged = spread(halves[1], split.caps.look_alikes, _source, lambda s: rank("judged", split.seed, s.session))
    if not judged or (seen and not halves[0]):
        return Nothing(NAME, "there are too few harmless look-alikes to learn one half of and to judge the other")
    kind = ("seen",) if seen else ()
    source = "seen" if seen else "unseen"
    probes = [
        probe_of(
            _placed(session, hosts, split.seed, *kind),
            split,
            label="benign",
            family=SEEN if seen else UNSEEN,
            cluster=f"{_source(session)}/{base_of(session)}",
            source=source,
        )
        for session in judged
    ]
    probes += benign_probes(split, split.caps.benign // 2, kind=kind, source=source)
    taught = [_placed(session, hosts, split.seed) for session in halves[0]] if seen else []
    return Trial(
        protocol=NAME,
        seed=split.seed,
        learn=_with(split.learn, taught, split.seed) if taught else split.learn,
        probes=probed(probes, split.seed),
        attacks=tuple(corpus.foreign),
        figures={"look_alikes": len(judged), "look_alikes_learned": len(taught)},
    )


def _placed(session: CorpusSession, hosts: dict[str, list[CorpusSession]], seed: int, *kind: object) -> CorpusSession:
    own = hosts[pick(sorted(hosts), "look-alike's host", seed, session.source, session.session)]
    return placed_on(session, pick(own, "beside the look-alike", seed, session.source, session.session), *kind)


def _source(session: CorpusSession) -> str:
    return session.source or session.tenant or ""


def _with(learn: Sequence[CorpusSession], taught: Sequence[CorpusSession], seed: int) -> tuple[CorpusSession, ...]:
    both = [*learn, *learned(taught, seed)]
    return tuple(sorted(both, key=lambda session: (session.start_ms or 0, session.session)))
