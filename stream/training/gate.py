"""Whether a challenger takes the champion's place: both have judged the same sessions, and rules decide.

Nothing here reads or runs anything: what the releases said comes from `judged`, what the labels are worth from `audit`.
Legend: k sessions, n sessions of a slice, m comparisons of slices.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.config import GateSettings
from stream.errors import StateError
from stream.training.audit import Analyst, Audit
from stream.training.judged import Judged
from stream.training.proportions import Interval, at_least, most_by_chance, paired_interval, wilson

SLICED_BY = ("tenant", "family", "language", "length", "model")
ATTACKS_MIN = 10
"""Labelled attack sessions below which recall says nothing: one is a tenth of it."""
HELD_OUT_MIN = 3
"""Labelled attack sessions that nothing was learned from, below which what was memorised passes for recall."""
BENIGN_MIN = 100
"""Held-out benign sessions below which a rate near the operating point cannot be told from twice as much."""
CHANCE = 0.05
"""That a challenger no worse than the limits is refused for a slice, over all slices together; and likewise for its
false positives."""
LEVELS = tuple(float(level) for level in np.round(np.logspace(-6, math.log10(0.2), 28), 8))
"""Operating points at which both releases are shown."""
RARITIES = 17
"""Bars of the least p's distribution: half a power of ten each, the last one open."""
_EXACT = 1e-9
"""What rounding may make of equal shares."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One rule, and what came of it."""

    name: str
    ok: bool
    champion: float | None = None
    challenger: float | None = None
    limit: float | None = None
    """What the challenger's figure must not fall below, or not exceed."""
    interval: Interval | None = None
    """95 %, of the challenger's figure, or of the difference where the sentence says so."""
    sentence: str


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """Sessions with one value of one key, counted."""

    key: str
    value: str
    attacks: int
    found_champion: int
    found_challenger: int
    recall_interval: Interval
    """Wilson's, of the challenger."""
    benign: int
    flagged_champion: int
    flagged_challenger: int
    flagged_interval: Interval
    recall_judged: bool
    """Whether it has attacks enough, of different tasks."""
    flagged_judged: bool
    """Whether it has benign sessions enough, of different tasks."""
    judged: bool
    """Whether either is."""
    failed: list[str] = []
    """A sentence for each rule that it breaks."""


class ReleaseFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What a release made of the sessions, for tables and pictures."""

    release: str
    found: int
    flagged: int
    recall_at: list[float]
    """Share of labelled attacks with a least p at or below each of `levels`."""
    flagged_at: list[float]
    """Share of benign sessions, likewise."""
    attack_rarity: list[int]
    """Labelled attacks by −log₁₀ of their least p: bars of ½."""
    benign_rarity: list[int]
    by_signal: dict[str, int]
    """Attacks found, by the signal with the least p."""


class LabelFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Of the label audit, what a report shows."""

    noise: float
    noise_max: float
    refused: str | None
    set_aside: dict[str, str]
    analysts: list[Analyst]
    figures: dict[str, float]
    doubted: int


class GateReport(msgspec.Struct, frozen=True, kw_only=True):
    """The decision, and everything that it rests on."""

    promote: bool
    reason: str
    """In a sentence."""
    checks: list[Check]
    """In the order in which the first that fails gives the reason."""
    slices: list[Slice]
    champion: ReleaseFigures
    challenger: ReleaseFigures
    attacks: int
    """Labelled attack sessions."""
    attacks_held_out: int
    """Of them those that the challenger learned nothing from."""
    attacks_earlier: int
    """Of them those that the champion, or one before it, was made with."""
    benign: int
    """Held-out sessions that are no labelled attack, most of them judged by nobody."""
    benign_labelled: int
    session_fpr: float
    """The operating point."""
    levels: list[float]
    labels: LabelFigures | None = None


def decide(
    champion: Judged,
    challenger: Judged,
    settings: GateSettings,
    *,
    audit: Audit | None = None,
    attacks_min: int = ATTACKS_MIN,
    held_out_min: int = HELD_OUT_MIN,
    benign_min: int = BENIGN_MIN,
) -> GateReport:
    """Hold the challenger against the champion.

    A challenger that is as good in everything and better in nothing is promoted: it was asked for, by age or drift, and
    knows the tenants as they are now.

    Chance is given its due where a rule says so: differences within a slice are paired, as both releases judged the
    same sessions (Newcombe's hybrid score interval), ratios of a slice to all go by the exact binomial distribution,
    and both at a level shared out to all slices (Bonferroni), or one slice in twenty would fail for nothing. A slice is
    worth its tasks: thirty sessions of nine tasks are nine, in its size and in the ratio. All false positives together
    go by the exact binomial distribution at the operating point. Recall has no such allowance: an attack that was found
    is to be found. On those that the challenger learned nothing from, as of the others it may know the very words, it
    is asked for again, beyond chance (McNemar's exact test, one side): they are few, and were labelled because the
    champion found them, so one that is as good loses some and wins few.

    Parameters
    ----------
    audit
        Of the labels that the challenger was trained on; None where there were none.
    attacks_min, held_out_min, benign_min
        Sessions below which nothing is promoted: labelled attacks, those of them held out, and benign ones.

    Raises
    ------
    StateError
        When the two have not judged the same sessions.

    References
    ----------
    Newcombe (1998), Improved confidence intervals for the difference between binomial proportions based on paired data,
    method 10. Wilson (1927). Clopper and Pearson (1934). McNemar (1947).
    """
    if (champion.tenant, champion.session, champion.label) != (challenger.tenant, challenger.session, challenger.label):
        raise StateError(
            f"champion {champion.release} and challenger {challenger.release} must have judged the same sessions with "
            f"the same labels; they judged {len(champion)} and {len(challenger)}. This is a bug."
        )
    attack, benign = champion.attack, champion.benign
    earlier, unseen = attack & champion.earlier, attack & champion.held_out
    slices = _slices(champion, challenger, settings)
    checks = [
        *_labels(audit, settings),
        _evidence((int(attack.sum()), attacks_min), (int(unseen.sum()), held_out_min), (int(benign.sum()), benign_min)),
        *(
            _recall(name, of, champion.flagged[part], challenger.flagged[part], settings, chance=chance)
            for name, of, part, chance in (
                ("recall", "labelled attack sessions", attack, 1.0),
                ("recall_held_out", "labelled attack sessions held out from training", unseen, CHANCE),
                ("recall_earlier", "attack sessions that the champion was made with", earlier, 1.0),
            )
            if part.any() or name == "recall"
        ),
        _false_positives(champion, challenger, settings),
        _sliced(slices, settings),
    ]
    failed = [check for check in checks if not check.ok]
    return GateReport(
        promote=not failed,
        reason=_reason(failed, checks, champion, challenger, slices),
        checks=checks,
        slices=slices,
        champion=_figures(champion),
        challenger=_figures(challenger),
        attacks=int(attack.sum()),
        attacks_held_out=int(unseen.sum()),
        attacks_earlier=int(earlier.sum()),
        benign=int(benign.sum()),
        benign_labelled=sum(
            label == "benign" and held for label, held in zip(champion.label, benign.tolist(), strict=True)
        ),
        session_fpr=challenger.session_fpr,
        levels=list(LEVELS),
        labels=_label_figures(audit, settings),
    )


# -- rules -------------------------------------------------------------------------------------------------------------


def _labels(audit: Audit | None, settings: GateSettings) -> Iterator[Check]:
    if audit is None:
        return
    why = audit.refused
    aside = "; ".join(audit.set_aside[name] for name in sorted(audit.set_aside))
    judged = int(audit.figures.get("judged", 0))
    share = f"{audit.noise:.1%} of {judged} labels contradict all others, at most {settings.label_noise_max:.0%} may"
    yield Check(
        name="labels",
        ok=why is None,
        challenger=audit.noise,
        limit=settings.label_noise_max,
        sentence=(f"the labels are not believed: {why}" if why is not None else share)
        + (f"; {aside}" if aside else ""),
    )


def _evidence(attacks: tuple[int, int], unseen: tuple[int, int], benign: tuple[int, int]) -> Check:
    """Of each how many there are, and how many are needed."""
    lacking = [
        f"{count} {what}, where {needed} are needed to judge {by_them}"
        for (count, needed), what, by_them in (
            (attacks, "labelled attack sessions", "recall"),
            (unseen, "labelled attack sessions held out from training", "what was not memorised"),
            (benign, "held-out benign sessions", "false positives"),
        )
        if count < needed
    ]
    return Check(
        name="evidence",
        ok=not lacking,
        sentence=f"there are only {' and '.join(lacking)}"
        if lacking
        else f"{attacks[0]} labelled attack sessions, {unseen[0]} of them held out from training, and {benign[0]} "
        "held-out benign ones are enough to judge by",
    )


def _recall(
    name: str,
    of: str,
    champion: NDArray[np.bool_],
    challenger: NDArray[np.bool_],
    settings: GateSettings,
    *,
    chance: float,
) -> Check:
    """Whether recall falls, by more than chance has the probability `chance` of making of it; 1: at all."""
    count = len(champion)
    before, after = int(champion.sum()), int(challenger.sum())
    drop = (before - after) / max(count, 1)
    lost, won = int((champion & ~challenger).sum()), int((~champion & challenger).sum())
    ok = drop <= settings.recall_drop_max + _EXACT or at_least(lost, lost + won, 0.5) > chance
    moved = f"{after} of {count} {of} are found, {before} by the champion ({lost} lost, {won} won)"
    allowed = f"; recall may fall by {settings.recall_drop_max:.1%} at most, and falls by {drop:.1%}"
    return Check(
        name=name,
        ok=ok,
        champion=_round(before / max(count, 1)),
        challenger=_round(after / max(count, 1)),
        limit=_round(before / max(count, 1) - settings.recall_drop_max),
        interval=_rounded(paired_interval(champion, challenger, 0.05)) if count else None,
        sentence=moved if ok else moved + allowed,
    )


def _false_positives(champion: Judged, challenger: Judged, settings: GateSettings) -> Check:
    benign = champion.benign
    count = int(benign.sum())
    before, after = int(champion.flagged[benign].sum()), int(challenger.flagged[benign].sum())
    point = min(challenger.session_fpr + settings.fpr_slack, 1.0)
    by_chance = most_by_chance(count, point, CHANCE)
    most = max(by_chance, before)
    rate = after / max(count, 1)
    allowed = f"as chance may make of {point:.1%}" if by_chance >= before else "as many as by the champion"
    return Check(
        name="false_positives",
        ok=after <= most,
        champion=_round(before / max(count, 1)),
        challenger=_round(rate),
        limit=_round(most / max(count, 1)),
        interval=_rounded(wilson(after, count, 0.05)),
        sentence=f"{after} of {count} benign held-out sessions are flagged ({rate:.1%}), {before} by the champion; "
        f"at most {most} may be, {allowed}",
    )


def _sliced(slices: Sequence[Slice], settings: GateSettings) -> Check:
    judged = [each for each in slices if each.judged]
    broken = [sentence for each in slices for sentence in each.failed]
    if broken:
        more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
        sentence = broken[0] + more
    else:
        sentence = (
            f"none of {len(judged)} slices of {settings.slice_tasks_min} tasks or more is worse, or flagged more often "
            "than all, beyond what is allowed and chance explains"
        )
    return Check(name="slices", ok=not broken, challenger=float(len(broken)), limit=0.0, sentence=sentence)


def _slices(champion: Judged, challenger: Judged, settings: GateSettings) -> list[Slice]:
    """All slices, those that are judged with what they break."""
    attack, benign = champion.attack, champion.benign
    least = settings.slice_tasks_min
    members: list[tuple[str, str, NDArray[np.bool_]]] = []
    comparisons = 0
    for key in SLICED_BY:
        values = np.array(champion.slices[key], np.str_)
        for value in sorted(set(values.tolist()) - {""}):
            inside = values == value
            members.append((key, value, inside))
            comparisons += int(_tasks(champion, inside & attack) >= least)
            comparisons += 2 * int(_tasks(champion, inside & benign) >= least)
    chance = CHANCE / max(comparisons, 1)
    overall = float(challenger.flagged[benign].mean()) if benign.any() else 0.0
    return [
        _slice(key, value, inside, champion, challenger, settings, chance=chance, overall=overall)
        for key, value, inside in members
    ]


def _tasks(judged: Judged, inside: NDArray[np.bool_]) -> int:
    """Of sessions `inside` (k,), how many tasks they are."""
    at = np.flatnonzero(inside).tolist()
    return len({judged.task[i] for i in at}) if judged.task else len(at)


def _slice(
    key: str,
    value: str,
    inside: NDArray[np.bool_],
    champion: Judged,
    challenger: Judged,
    settings: GateSettings,
    *,
    chance: float,
    overall: float,
) -> Slice:
    attacks, benign = inside & champion.attack, inside & champion.benign
    n, own = int(attacks.sum()), int(benign.sum())
    least, allowed = settings.slice_tasks_min, settings.slice_drop_max
    attack_tasks, tasks = _tasks(champion, attacks), _tasks(champion, benign)
    found = [int(each.flagged[attacks].sum()) for each in (champion, challenger)]
    flagged = [int(each.flagged[benign].sum()) for each in (champion, challenger)]
    failed = []
    if attack_tasks >= least:
        rise = paired_interval(champion.flagged[attacks], challenger.flagged[attacks], chance)
        if -rise[1] > allowed:
            failed.append(
                f"recall in {key} {value} fell from {found[0]} to {found[1]} of {n} attack sessions: by {-rise[1]:.1%} "
                f"at the very least, {allowed:.0%} is allowed"
            )
    if tasks >= least:
        rise = paired_interval(champion.flagged[benign], challenger.flagged[benign], chance)
        if rise[0] > allowed:
            failed.append(
                f"benign sessions flagged in {key} {value} rose from {flagged[0]} to {flagged[1]} of {own}: by "
                f"{rise[0]:.1%} at the very least, {allowed:.0%} is allowed"
            )
        most = settings.slice_ratio_max * overall
        if flagged[1] and at_least(flagged[1] * tasks // own, tasks, most) <= chance:
            rate = flagged[1] / own
            failed.append(
                f"{flagged[1]} of {own} benign sessions in {key} {value} are flagged ({rate:.1%}): "
                f"{rate / overall:.1f} times as often as all ({overall:.1%}), "
                f"{settings.slice_ratio_max:g} times is allowed"
            )
    return Slice(
        key=key,
        value=value,
        attacks=n,
        found_champion=found[0],
        found_challenger=found[1],
        recall_interval=_rounded(wilson(found[1], n, 0.05)),
        benign=own,
        flagged_champion=flagged[0],
        flagged_challenger=flagged[1],
        flagged_interval=_rounded(wilson(flagged[1], own, 0.05)),
        recall_judged=attack_tasks >= least,
        flagged_judged=tasks >= least,
        judged=attack_tasks >= least or tasks >= least,
        failed=failed,
    )


def _reason(
    failed: Sequence[Check], checks: Sequence[Check], champion: Judged, challenger: Judged, slices: Sequence[Slice]
) -> str:
    if failed:
        more = f" ({len(failed) - 1} more of {len(checks)} checks failed)" if len(failed) > 1 else ""
        return f"Refused: {failed[0].sentence}{more}."
    said = {check.name: check.sentence for check in checks}
    attack, benign = champion.attack, champion.benign
    same = all((champion.flagged[part] == challenger.flagged[part]).all() for part in (attack, benign))
    gained = "as good as the champion in everything, which is enough for one that was asked for: " if same else ""
    judged = sum(each.judged for each in slices)
    return (
        f"Promoted: {gained}{said['recall']}; {said['false_positives']}; none of {judged} slices is worse than allowed."
    )


# -- figures -----------------------------------------------------------------------------------------------------------


def _figures(judged: Judged) -> ReleaseFigures:
    attack, benign = judged.attack, judged.benign
    found = attack & judged.flagged
    signals = Counter(signal for signal, own in zip(judged.signal, found.tolist(), strict=True) if own)
    return ReleaseFigures(
        release=judged.release,
        found=int(found.sum()),
        flagged=int(judged.flagged[benign].sum()),
        recall_at=_at_levels(judged.least_p[attack]),
        flagged_at=_at_levels(judged.least_p[benign]),
        attack_rarity=_rarity(judged.least_p[attack]),
        benign_rarity=_rarity(judged.least_p[benign]),
        by_signal=dict(sorted(signals.items())),
    )


def _at_levels(least_p: NDArray[np.float64]) -> list[float]:
    known = np.sort(least_p)
    return [_round(share) for share in (np.searchsorted(known, LEVELS, side="right") / max(len(known), 1)).tolist()]


def _rarity(least_p: NDArray[np.float64]) -> list[int]:
    # The last p that a float tells from 0 is far beyond the last bar.
    place = np.minimum(2 * -np.log10(np.clip(least_p, 1e-300, 1.0)), RARITIES - 1).astype(np.int64)
    counts: list[int] = np.bincount(place, minlength=RARITIES).tolist()
    return counts


def _label_figures(audit: Audit | None, settings: GateSettings) -> LabelFigures | None:
    if audit is None:
        return None
    return LabelFigures(
        noise=audit.noise,
        noise_max=settings.label_noise_max,
        refused=audit.refused,
        set_aside=dict(sorted(audit.set_aside.items())),
        analysts=audit.analysts,
        figures=audit.figures,
        doubted=len(audit.doubted),
    )


def _round(value: float) -> float:
    return round(value, 6)


def _rounded(interval: Interval) -> Interval:
    return _round(interval[0]), _round(interval[1])
