"""Whether labels can be believed: each is held against what all others say of text like it, and so is each analyst.

Legend: n labels, d documents (what a finding showed, or a known session said), k folds, g groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.ngrams import NGrams, token_shapes
from models.wordpiece import TokenBags
from schemas.label import Label, label_key
from stream.config import GateSettings, Settings
from stream.record import Record
from stream.steps.content import JUDGED, Embeds, segmented
from stream.steps.decode import decode

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

FOLDS = 5
JUDGED_MIN = 20
"""Labels below which a share of contradicted ones is chance."""
ANALYST_MIN = 5
"""Labels of an analyst before the analyst is judged."""
CHANCE = 0.01
"""Of setting an honest analyst aside, over all analysts and both tests of one round."""
LABELS_FEW = 40
"""Below so many judged labels a share beyond the limit must be unlikely too: a model of thirty labels errs by itself.
From there on the share decides."""
NOISE = 0.25
"""Of calling few labels noise that have just as much of it as is let pass; good ones have a third of that or less."""
DOCUMENTS_MAX = 2_000
"""Known documents that are read: more teach nothing that these do not."""
SEGMENTS_MAX = 8
"""Segments of a known session: as few as a finding shows, or length would tell them apart."""
_COST = 3.0
"""As the classifier of known attacks is fitted: what it would be taught is what is asked here."""


@dataclass(frozen=True, slots=True)
class Known:
    """Documents (d) whose truth does not rest on the labels in question: earlier labels, traffic taken for benign."""

    texts: Sequence[Sequence[str]]
    """(d,) segments of each."""
    attack: NDArray[np.bool_]
    """(d,)"""
    group: Sequence[str]
    """(d,) session or task: what belongs together."""


class Analyst(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of one analyst's labels."""

    analyst: str
    verified: bool
    """Whether signatures proved the name, of all labels."""
    labels: int
    """Labels that teach and have text."""
    contradicted: int
    """By a fit of all others' labels, and of what is known, on text like theirs."""
    benign_for_attack: int
    """Of the contradicted: called benign where the others see an attack."""
    others: float
    """Share of the others' labels that such a fit contradicts, each held out from it."""
    shared: int
    """Labels on findings that others have labelled too, and are of one mind about."""
    disagreed: int
    """Of those: the opposite of what the others say."""
    p_value: float
    """That chance lifts one analyst so far above the others; 1 where nothing can be said."""
    set_aside: str | None = None
    """Why nothing is learned from this analyst's labels."""


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """What may be learned from."""

    kept: frozenset[bytes]
    """Keys (`label_key`) of labels that teach, of analysts who are believed, and not disputed among those."""
    set_aside: dict[str, str]
    """Analyst -> why, in a sentence."""
    noise: float
    """Share of the labels left that contradict all others; 0 where there are too few to tell."""
    refused: str | None
    """Why nothing at all is learned from the labels, in a sentence."""
    doubted: list[bytes]
    """Kept labels that contradict all others: for a second look. A new kind of attack is among them, too."""
    analysts: list[Analyst]
    """As they were judged last, by name."""
    figures: dict[str, float]
    """`labels, judged, contradicted, disputed, noise, analysts, analysts_set_aside, known`."""


def audit(
    labels: Sequence[Label],
    texts_of: Callable[[Label], Sequence[str]],
    embedder: Embeds,
    *,
    seed: int,
    settings: GateSettings,
    known: Known | None = None,
    group_of: Callable[[Label], str] = lambda label: label.session or label.entity,
) -> Audit:
    """Hold every label against all others, set aside analysts who contradict them, refuse what is left if it is noise.

    A label is contradicted when a linear model of n-grams, fitted on the other groups' labels and on what is known,
    says the opposite of its text. An analyst is judged by models that have seen none of that analyst's labels: the
    share that they contradict is held against the share of the others' own labels that the same models, each held out,
    contradict (Fisher's exact test); beside that, verdicts on findings that others have labelled too are held against
    how often those others disagree among themselves. The one furthest out is set aside, and the rest judged anew,
    until nobody stands out. No analyst weighs more than the median one, so that writing many labels buys nothing.

    Contradicted labels of believed analysts are kept: what is new contradicts what is known, and is what must be
    learned. More of them than `gate.label_noise_max` are no news but noise; of few labels, beyond chance.

    Parameters
    ----------
    labels
        The last of each key.
    texts_of
        Redacted segments that a label is about; none where there is no text, and such a label cannot be judged.
    known
        Without, a majority of the labels is all that there is to go by.
    group_of
        What belongs together, and is never on both sides of a fit: a session, or the task it tells again.

    References
    ----------
    Northcutt et al. (2021), Confident learning: label errors by out-of-fold predictions. Fisher (1922), the exact test.
    """
    bench = _Bench.of(labels, texts_of, embedder, seed, known, group_of)
    active = sorted({label.analyst for label in bench.teaching})
    aside: dict[str, str] = {}
    judged: dict[str, Analyst] = {}
    refused: str | None = None
    while True:
        latest = [_analyst(bench, name, active) for name in active]
        judged |= {each.analyst: each for each in latest}
        out = [each for each in latest if _stands_out(each, len(active), settings)]
        if not out:
            break
        if len(active) == 2 and len(out) == 2 and out[0].verified == out[1].verified and not bench.knows_both:
            refused = f"{active[0]} and {active[1]} contradict each other, and nothing else says who is right"
            break
        # Of two who contradict each other, the one whose name is proved is believed first.
        worst = min(out, key=lambda each: (len(active) == 2 and each.verified, each.p_value, each.analyst))
        aside[worst.analyst] = _why(worst)
        judged[worst.analyst] = msgspec.structs.replace(worst, set_aside=aside[worst.analyst])
        active.remove(worst.analyst)
    return _summed(bench, settings, judged, aside, refused)


def known_sessions(
    records: Sequence[Record], attacks: Collection[tuple[str, str]], settings: Settings, *, seed: int
) -> Known:
    """What users and tools said in the sessions of `records`: attacks are those in `attacks` (tenant, session)."""
    said: dict[tuple[str, str], dict[str, None]] = {}
    for low in range(0, len(records), _AT_ONCE):
        batch, _ = decode(records[low : low + _AT_ONCE], settings.core.future_ms)
        for head in batch.heads:
            own = said.setdefault((head.tenant, head.session), {})
            for message in head.messages:
                content = segmented(message)
                roles = content.roles.tolist()
                own.update((text, None) for text, role in zip(content.texts, roles, strict=True) if role in JUDGED)
    rng = np.random.default_rng(seed)
    names = sorted(name for name, own in said.items() if own)
    texts = []
    for name in names:
        own_texts = list(said[name])
        some = np.sort(rng.permutation(len(own_texts))[:SEGMENTS_MAX])
        texts.append([own_texts[place] for place in some.tolist()])
    return Known(texts, np.array([name in attacks for name in names], np.bool_), [session for _, session in names])


def with_attacks(known: Known, attacks: Iterable[tuple[str, Sequence[str]]], *, seed: int) -> Known:
    """`known` and attacks, each a session and its segments, that somebody knows from elsewhere."""
    rng = np.random.default_rng(seed)
    texts, group = list(known.texts), list(known.group)
    for session, own in attacks:
        if own:
            some = np.sort(rng.permutation(len(own))[:SEGMENTS_MAX])
            texts.append([own[place] for place in some.tolist()])
            group.append(session)
    flags = np.arange(len(texts)) >= len(known.texts)
    flags[: len(known.texts)] = known.attack
    return Known(texts, flags, group)


_AT_ONCE = 2000


@dataclass(slots=True)
class _Bench:
    """Labels and documents, laid out for fits."""

    teaching: list[Label]
    """All labels that teach."""
    rows: list[Label]
    """(n,) those with text."""
    document: NDArray[np.int64]
    """(n,) of each label."""
    attack: NDArray[np.bool_]
    """(n,) what each label says."""
    analyst: NDArray[np.str_]
    """(n,)"""
    x: csr_matrix
    """(d, COLUMNS) of documents: those of labels, then the known ones."""
    fold: NDArray[np.int64]
    """(d,)"""
    known: NDArray[np.int64]
    """Which documents are known, and (below) what they are."""
    known_attack: NDArray[np.bool_]
    seed: int

    @property
    def knows_both(self) -> bool:
        """Whether attacks and benign documents are known, whatever the labels say."""
        return bool(self.known_attack.any()) and not bool(self.known_attack.all())

    @classmethod
    def of(
        cls,
        labels: Sequence[Label],
        texts_of: Callable[[Label], Sequence[str]],
        embedder: Embeds,
        seed: int,
        known: Known | None,
        group_of: Callable[[Label], str],
    ) -> _Bench:
        # Training only: a slow import.
        from models.training.linear import matrix

        teaching = sorted(
            (label for label in labels if label.teaches is not None), key=lambda each: (each.finding_uid, each.analyst)
        )
        texts: list[Sequence[str]] = []
        groups: list[str] = []
        place: dict[str, int] = {}
        rows: list[Label] = []
        for label in teaching:
            if label.finding_uid not in place:
                said = [text for text in texts_of(label) if text.strip()]
                if not said:
                    continue
                place[label.finding_uid] = len(texts)
                texts.append(said)
                groups.append(group_of(label))
            rows.append(label)
        labelled = len(texts)
        known_attack = np.zeros(0, np.bool_)
        if known is not None and len(known.texts):
            attack = {label.finding_uid for label in rows if label.teaches == "attack"}
            chosen = _chosen(known, {True: len(attack), False: labelled - len(attack)}, seed)
            texts += [known.texts[at] for at in chosen]
            groups += [known.group[at] for at in chosen]
            known_attack = known.attack[chosen]
        segments = [segment for document in texts for segment in document]
        bags = embedder.encode(segments)
        ends = np.cumsum([0, *(len(document) for document in texts)])
        documents = TokenBags(bags.ids, bags.offsets[ends])
        number, group = np.unique(np.array(groups, np.str_), return_inverse=True)
        ngrams = NGrams.fit(documents, group, token_shapes(embedder.vocabulary))
        dealt = np.random.default_rng(seed).permutation(len(number)) % FOLDS
        return cls(
            teaching=teaching,
            rows=rows,
            document=np.array([place[label.finding_uid] for label in rows], np.int64),
            attack=np.array([label.teaches == "attack" for label in rows], np.bool_),
            analyst=np.array([label.analyst for label in rows], np.str_),
            x=matrix(ngrams.features(documents)),
            fold=dealt[group].astype(np.int64),
            known=np.arange(labelled, len(texts)),
            known_attack=known_attack,
            seed=seed,
        )

    def said_of(self, use: NDArray[np.bool_]) -> NDArray[np.float64] | None:
        """Log-odds (d,) that a document is an attack, by the labels `use` (n,) and known documents of the other folds.

        None where those do not hold both kinds.
        """
        from models.training.linear import fit_logistic

        rows = np.flatnonzero(use)
        at = np.concatenate([self.document[rows], self.known])
        positive = np.concatenate([self.attack[rows], self.known_attack])
        weight = np.concatenate([self._weights(rows), np.ones(len(self.known))])
        odds = np.zeros(self.x.shape[0])
        for number in range(FOLDS):
            inside = self.fold[at] != number
            if not positive[inside].any() or positive[inside].all():
                return None
            total = weight[inside & positive].sum(), weight[inside & ~positive].sum()
            own = weight / np.where(positive, *total)
            weights, constant = fit_logistic(
                self.x[at[inside]], positive[inside], own[inside], cost=_COST, seed=self.seed
            )
            held = np.flatnonzero(self.fold == number)
            odds[held] = self.x[held] @ weights + constant
        return odds

    def _weights(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Weights of the labels `rows`: an analyst's are no more together than the median analyst's."""
        _, number, counts = np.unique(self.analyst[rows], return_inverse=True, return_counts=True)
        share = np.minimum(1.0, np.median(counts) / counts) if len(counts) else np.ones(0)
        weights: NDArray[np.float64] = share[number]
        return weights

    def of_analysts(self, names: Collection[str]) -> NDArray[np.bool_]:
        """Labels (n,) of some analysts."""
        return np.isin(self.analyst, sorted(names))


def _chosen(known: Known, labelled: Mapping[bool, int], seed: int) -> NDArray[np.intp]:
    """Known documents that are read: of each kind no more than there are, known or labelled, of the other.

    A fit that sees a thousand benign documents and thirty attacks takes the next attack for benign, and would call
    whoever says so a liar.
    """
    rng = np.random.default_rng(seed)
    count = {kind: int((known.attack == kind).sum()) for kind in (True, False)}
    parts = []
    for kind in (True, False):
        own = rng.permutation(np.flatnonzero(known.attack == kind))
        parts.append(own[: min(DOCUMENTS_MAX // 2, max(JUDGED_MIN, count[not kind] + labelled[not kind]))])
    return np.sort(np.concatenate(parts))


def _analyst(bench: _Bench, name: str, active: Sequence[str]) -> Analyst:
    """Judge one analyst by what the other `active` ones, and the known documents, say."""
    own = bench.of_analysts([name])
    others = bench.of_analysts([each for each in active if each != name])
    odds = bench.said_of(others)
    contradicted = benign_for_attack = 0
    share, p_text = 0.0, 1.0
    if odds is not None and own.any():
        says = odds[bench.document] > 0
        wrong = says != bench.attack
        contradicted = int((wrong & own).sum())
        benign_for_attack = int((wrong & own & ~bench.attack).sum())
        held, of = int((wrong & others).sum()), int(others.sum())
        if not of:
            # A single analyst is held against what is known.
            held = int(((odds[bench.known] > 0) != bench.known_attack).sum())
            of = len(bench.known)
        share = held / max(of, 1)
        p_text = _fisher(contradicted, int(own.sum()), held, of)
    shared, disagreed, held, of = _on_the_same(bench.teaching, name, active)
    p_shared = _fisher(disagreed, shared, held, of) if of else 1.0
    mine = [label for label in bench.teaching if label.analyst == name]
    return Analyst(
        analyst=name,
        verified=all(label.identity == "verified" for label in mine),
        labels=int(own.sum()),
        contradicted=contradicted,
        benign_for_attack=benign_for_attack,
        others=share,
        shared=shared,
        disagreed=disagreed,
        # Two tests, either of which may say so.
        p_value=min(1.0, 2 * min(p_text, p_shared)),
    )


def _on_the_same(labels: Sequence[Label], name: str, active: Collection[str]) -> tuple[int, int, int, int]:
    """Findings shared with others who are of one mind, those of them disputed; disputes among others, of how many."""
    of_finding: dict[str, list[Label]] = {}
    for label in labels:
        if label.analyst in active:
            of_finding.setdefault(label.finding_uid, []).append(label)
    shared = disagreed = held = of = 0
    for own in of_finding.values():
        others = [label for label in own if label.analyst != name]
        taught = Counter(label.teaches for label in others)
        for label in own:
            if label.analyst == name and len(taught) == 1:
                shared += 1
                disagreed += label.teaches not in taught
        if len(others) > 1:
            of += 1
            held += len(taught) > 1
    return shared, disagreed, held, of


def _fisher(mine: int, of_mine: int, theirs: int, of_theirs: int) -> float:
    """Probability that chance gives one analyst `mine` or more of all that were contradicted."""
    from scipy import stats

    if not of_mine or not of_theirs:
        return 1.0
    return float(stats.hypergeom.sf(mine - 1, of_mine + of_theirs, mine + theirs, of_mine))


def _by_chance(contradicted: int, of: int, settings: GateSettings) -> float:
    """Probability of so many contradicted labels or more, were their share what is let pass."""
    from scipy import stats

    return float(stats.binom.sf(contradicted - 1, of, settings.label_noise_max))


def _stands_out(each: Analyst, analysts: int, settings: GateSettings) -> bool:
    """Far above the others beyond chance, and beyond what is let pass of everybody."""
    by_text = each.labels >= ANALYST_MIN and each.contradicted > settings.label_noise_max * each.labels
    by_shared = each.shared >= ANALYST_MIN and each.disagreed > settings.label_noise_max * each.shared
    # Who cannot agree among themselves cannot blame anybody: then it is all noise.
    return (by_text or by_shared) and each.others <= settings.label_noise_max and each.p_value <= CHANCE / analysts


def _why(each: Analyst) -> str:
    parts = []
    if each.contradicted:
        which = f", {each.benign_for_attack} of them attacks called benign" if each.benign_for_attack else ""
        parts.append(
            f"{each.contradicted} of {each.labels} labels contradict what all others say of such text{which}; "
            f"of the others' {each.others:.1%} do"
        )
    if each.disagreed:
        parts.append(f"{each.disagreed} of {each.shared} verdicts on findings that others judged too say the opposite")
    return f"{each.analyst} is set aside: {'; '.join(parts)}"


def _summed(
    bench: _Bench, settings: GateSettings, judged: Mapping[str, Analyst], aside: dict[str, str], refused: str | None
) -> Audit:
    """What is left to be learned from."""
    believed = [label for label in bench.teaching if label.analyst not in aside]
    taught: dict[str, set[str]] = {}
    for label in believed:
        taught.setdefault(label.finding_uid, set()).add(str(label.teaches))
    kept = [label for label in believed if len(taught[label.finding_uid]) == 1]
    use = bench.of_analysts({label.analyst for label in believed})
    odds = bench.said_of(use)
    judged_labels, doubted = 0, list[bytes]()
    if odds is not None:
        judged_labels = int(use.sum())
        wrong = use & ((odds[bench.document] > 0) != bench.attack)
        doubted = list(_keys(bench.rows, wrong))
    noise = len(doubted) / judged_labels if judged_labels >= JUDGED_MIN else 0.0
    few = judged_labels < LABELS_FEW and _by_chance(len(doubted), judged_labels, settings) > NOISE
    if refused is None and noise > settings.label_noise_max and not few:
        refused = (
            f"{len(doubted)} of {judged_labels} labels ({noise:.1%}) contradict all others; "
            f"at most {settings.label_noise_max:.0%} may, and no one analyst is to blame"
        )
    keys = frozenset(label_key(label.finding_uid, label.analyst) for label in kept) if refused is None else frozenset()
    return Audit(
        kept=keys,
        set_aside=aside,
        noise=round(noise, 6),
        refused=refused,
        doubted=[key for key in doubted if key in keys],
        analysts=[judged[name] for name in sorted(judged)],
        figures={
            "labels": len(bench.teaching),
            "judged": judged_labels,
            "contradicted": len(doubted),
            "disputed": len(believed) - len(kept),
            "noise": round(noise, 6),
            "analysts": len(judged),
            "analysts_set_aside": len(aside),
            "known": len(bench.known),
        },
    )


def _keys(rows: Sequence[Label], which: NDArray[np.bool_]) -> Iterator[bytes]:
    for at in np.flatnonzero(which).tolist():
        yield label_key(rows[at].finding_uid, rows[at].analyst)
