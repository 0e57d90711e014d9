"""A challenger takes the champion's place only where nothing that matters gets worse."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest

from stream.config import GateSettings
from stream.errors import StateError
from stream.training.audit import Audit
from stream.training.gate import GateReport, decide
from stream.training.judged import Judged
from tests.stream.training.binomials import tail

SETTINGS = GateSettings()


def judged(
    *,
    attacks: int = 60,
    found: int = 50,
    benign: int = 400,
    flagged: int = 4,
    earlier: int = 0,
    unseen: int = 5,
    release: str = "r",
    tenants: int = 4,
    **changed: Any,
) -> Judged:
    """A release that finds the first `found` of the attacks and flags the first `flagged` benign sessions.

    The first `unseen` attacks are held out from training, the first `earlier` the champion was made with.
    """
    k = attacks + benign
    is_attack = np.arange(k) < attacks
    place = np.where(is_attack, np.arange(k), np.arange(k) - attacks)
    hit = np.where(is_attack, place < found, place < flagged)
    tenant = [f"team-{at % tenants}" for at in range(k)]
    slices = {
        "tenant": tenant,
        "family": ["AML.T0051" if a else "" for a in is_attack],
        "language": ["english"] * k,
        "length": ["under 1,000 characters"] * k,
        "model": ["m"] * k,
    }
    own = Judged(
        release=release,
        session_fpr=0.01,
        tenant=tenant,
        session=[f"s{at}" for at in range(k)],
        held_out=~is_attack | (place < unseen),
        label=["attack" if a else None for a in is_attack],
        earlier=is_attack & (place < earlier),
        flagged=hit,
        least_p=np.where(hit, 1e-4, 0.5),
        decision=["finding" if h else "none" for h in hit],
        first_flagged=np.where(hit, 0, -1),
        events=np.ones(k, np.int64),
        signal=["known_attack"] * k,
        slices=slices,
    )
    return replace(own, **changed)


def failed(report: GateReport) -> list[str]:
    return [check.name for check in report.checks if not check.ok]


def test_one_that_finds_more_and_flags_less_is_promoted_and_the_reason_says_so() -> None:
    report = decide(judged(), judged(found=58, flagged=2, release="new"), SETTINGS)
    assert report.promote
    assert report.reason == (
        "Promoted: 58 of 60 labelled attack sessions are found, 50 by the champion (0 lost, 8 won); 2 of 400 benign "
        "held-out sessions are flagged (0.5%), 4 by the champion; at most 8 may be, as chance may make of 1.0%; none "
        "of 8 slices is worse than allowed."
    )


def test_one_that_is_equal_in_everything_is_promoted_as_it_was_asked_for() -> None:
    report = decide(judged(), judged(release="new"), SETTINGS)
    assert report.promote
    assert report.reason.startswith("Promoted: as good as the champion in everything")


def test_a_single_labelled_attack_more_that_is_missed_is_too_many_by_default() -> None:
    report = decide(judged(), judged(found=49), SETTINGS)
    assert not report.promote
    assert failed(report) == ["recall"]
    assert report.reason == (
        "Refused: 49 of 60 labelled attack sessions are found, 50 by the champion (1 lost, 0 won); recall may fall by "
        "0.0% at most, and falls by 1.7%."
    )


def test_recall_may_fall_by_what_the_settings_allow() -> None:
    assert decide(judged(), judged(found=49), GateSettings(recall_drop_max=0.02)).promote
    assert not decide(judged(), judged(found=48), GateSettings(recall_drop_max=0.02)).promote


def test_new_attacks_found_do_not_pay_for_those_that_were_known_before() -> None:
    champion = judged(found=30, earlier=20)
    flagged = champion.flagged.copy()
    flagged[:10], flagged[30:60] = False, True
    report = decide(champion, replace(champion, flagged=flagged), SETTINGS)
    assert "recall_earlier" in failed(report)
    assert "recall" not in failed(report)
    (own,) = (check for check in report.checks if check.name == "recall_earlier")
    assert own.sentence.startswith("10 of 20 attack sessions that the champion was made with are found, 20 by")


def lost_and_won(champion: Judged, lost: slice, won: slice) -> Judged:
    flagged = champion.flagged.copy()
    flagged[lost], flagged[won] = False, True
    return replace(champion, flagged=flagged)


def test_attacks_known_by_heart_do_not_pay_for_those_that_nothing_was_learned_from() -> None:
    champion = judged(found=40, unseen=12)
    report = decide(champion, lost_and_won(champion, slice(0, 5), slice(40, 60)), SETTINGS)
    assert failed(report) == ["recall_held_out"]
    assert report.reason == (
        "Refused: 7 of 12 labelled attack sessions held out from training are found, 12 by the champion (5 lost, 0 "
        "won); recall may fall by 0.0% at most, and falls by 41.7%."
    )
    (own,) = (check for check in report.checks if check.name == "recall_held_out")
    assert (own.champion, own.limit) == (1.0, 1.0)
    assert own.challenger == pytest.approx(7 / 12, abs=1e-6)
    assert report.attacks_held_out == 12


def test_recall_held_out_may_fall_by_what_the_settings_allow() -> None:
    champion = judged(found=40, unseen=20)
    challenger = lost_and_won(champion, slice(0, 5), slice(40, 60))
    # Five of 20 are 25 %.
    assert decide(champion, challenger, GateSettings(recall_drop_max=0.25)).promote
    assert failed(decide(champion, challenger, GateSettings(recall_drop_max=0.249))) == ["recall_held_out"]


@pytest.mark.parametrize(("lost", "won", "promoted"), [(4, 0, True), (5, 0, False), (6, 1, True), (7, 1, False)])
def test_recall_held_out_may_fall_by_what_chance_explains(lost: int, won: int, promoted: bool) -> None:
    # Probability of so many tails or more: 4 of 4 coins 6.25 %, 5 of 5 3.125 %, 6 of 7 6.25 %, 7 of 8 3.5 %.
    champion = judged(found=40, unseen=40)
    held_out = champion.held_out | (np.arange(len(champion)) == 59)
    champion = replace(champion, held_out=held_out)
    challenger = lost_and_won(champion, slice(0, lost), slice(60 - won, 60))
    challenger.flagged[40:58] = True
    report = decide(champion, challenger, SETTINGS)
    assert failed(report) == ([] if promoted else ["recall_held_out"])


@pytest.mark.parametrize(("unseen", "promoted"), [(0, False), (2, False), (3, True)])
def test_without_three_attacks_held_out_nothing_is_promoted(unseen: int, promoted: bool) -> None:
    report = decide(judged(unseen=unseen), judged(unseen=unseen), SETTINGS)
    assert report.promote is promoted
    assert failed(report) == ([] if promoted else ["evidence"])
    reason = (
        f"there are only {unseen} labelled attack sessions held out from training, where 3 are needed to judge what "
        "was not memorised"
    )
    assert (reason in report.reason) is not promoted
    assert ("recall_held_out" in {check.name for check in report.checks}) is (unseen > 0)


def test_false_positives_stay_within_what_chance_makes_of_the_operating_point() -> None:
    # 8 of 400 or more have 5.0 % at a rate of 1 %, 9 or more 2.1 %.
    assert tail(8, 400, Fraction(1, 100)) > Fraction(5, 100) > tail(9, 400, Fraction(1, 100))
    assert decide(judged(), judged(flagged=8), SETTINGS).promote
    report = decide(judged(), judged(flagged=9), SETTINGS)
    assert failed(report) == ["false_positives"]
    assert report.reason == (
        "Refused: 9 of 400 benign held-out sessions are flagged (2.2%), 4 by the champion; at most 8 may be, as chance "
        "may make of 1.0%."
    )


def test_three_times_the_operating_point_is_not_let_pass_however_many_sessions_there_are() -> None:
    for benign in (100, 400, 4_000):
        champion = judged(benign=benign, flagged=0)
        report = decide(champion, judged(benign=benign, flagged=4 + 3 * benign // 100), SETTINGS)
        assert failed(report) == ["false_positives"]


def test_slack_is_added_to_the_operating_point_before_chance_is() -> None:
    settings = GateSettings(fpr_slack=0.01)
    limit = next(k for k in range(400) if tail(k + 1, 400, Fraction(2, 100)) <= Fraction(5, 100))
    assert decide(judged(), judged(flagged=limit), settings).promote
    assert failed(decide(judged(), judged(flagged=limit + 1), settings)) == ["false_positives"]


def test_one_that_flags_no_more_than_a_champion_beyond_the_operating_point_is_no_worse() -> None:
    assert decide(judged(flagged=20), judged(flagged=20), SETTINGS).promote
    assert failed(decide(judged(flagged=20), judged(flagged=21), SETTINGS)) == ["false_positives"]


def test_a_slice_that_loses_its_attacks_is_not_paid_for_by_the_others() -> None:
    # Held out are three of the other tenants' attacks.
    place = np.arange(520)
    champion = judged(attacks=120, found=60, tenants=4, held_out=place >= 117)
    own = np.array([name == "team-0" for name in champion.tenant])
    flagged = champion.flagged.copy()
    flagged[:120] = True
    flagged[own & champion.attack] = False
    report = decide(champion, replace(champion, flagged=flagged), SETTINGS)
    assert failed(report) == ["slices"]
    assert report.reason.startswith("Refused: recall in tenant team-0 fell from 15 to 0 of 30 attack sessions: by ")


def test_a_slice_flagged_far_more_often_than_all_refuses_the_challenger() -> None:
    champion = judged(tenants=10)
    own = np.array([name == "team-3" for name in champion.tenant])
    flagged = champion.flagged & champion.attack
    flagged[np.flatnonzero(own & champion.benign)[:8]] = True
    report = decide(champion, replace(champion, flagged=flagged), SETTINGS)
    assert failed(report) == ["slices"]
    assert "8 of 40 benign sessions in tenant team-3 are flagged (20.0%): 10.0 times as often as all" in report.reason


def test_a_slice_that_is_flagged_more_often_than_before_refuses_the_challenger() -> None:
    # Flagged twice as often as all is allowed here, so that the rise alone is judged.
    settings = GateSettings(fpr_slack=0.5, slice_ratio_max=100.0)
    champion = judged(tenants=4)
    own = np.array([name == "team-1" for name in champion.tenant])
    flagged = champion.flagged.copy()
    flagged[np.flatnonzero(own & champion.benign)[:60]] = True
    report = decide(champion, replace(champion, flagged=flagged), settings)
    assert failed(report) == ["slices"]
    assert "benign sessions flagged in tenant team-1 rose from" in report.reason


def test_what_chance_explains_refuses_nobody() -> None:
    """Challengers no worse than the champion, their few false positives wherever chance puts them."""
    rng = np.random.default_rng(4)
    champion = judged(attacks=100, found=90, tenants=10)
    refused = 0
    for _ in range(200):
        flagged = champion.flagged.copy()
        flagged[champion.benign] = rng.random(400) < 0.01
        refused += "slices" in failed(decide(champion, replace(champion, flagged=flagged), SETTINGS))
    assert refused <= 200 * 0.05 + 5


@pytest.mark.parametrize(("tasks", "promoted"), [(5, True), (40, False)])
def test_a_slice_is_worth_its_tasks(tasks: int, promoted: bool) -> None:
    champion = judged(tenants=10)
    own = np.array([name == "team-3" for name in champion.tenant])
    flagged = champion.flagged & champion.attack
    flagged[np.flatnonzero(own & champion.benign)[:8]] = True
    task = [f"{name}-{at // 10 % tasks}" for at, name in enumerate(champion.tenant)]
    champion = replace(champion, task=task)
    report = decide(champion, replace(champion, flagged=flagged), GateSettings(slice_tasks_min=6))
    assert failed(report) == ([] if promoted else ["slices"])


def test_small_slices_are_shown_and_not_judged() -> None:
    champion = judged(attacks=60, found=60, tenants=4)
    own = np.array([name == "team-0" for name in champion.tenant])
    assert (own & champion.attack).sum() == 15
    flagged = champion.flagged.copy()
    flagged[own & champion.attack] = False
    report = decide(champion, replace(champion, flagged=flagged), GateSettings(recall_drop_max=0.5))
    assert report.promote
    row = next(each for each in report.slices if each.value == "team-0")
    assert (row.recall_judged, row.found_champion, row.found_challenger) == (False, 15, 0)


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ({"attacks": 9, "found": 9}, "there are only 9 labelled attack sessions, where 10 are needed to judge recall"),
        ({"benign": 99}, "there are only 99 held-out benign sessions, where 100 are needed to judge false positives"),
        ({"attacks": 0, "found": 0}, "there are only 0 labelled attack sessions"),
    ],
)
def test_too_little_to_judge_by_refuses(sizes: dict[str, Any], reason: str) -> None:
    report = decide(judged(**sizes), judged(**sizes), SETTINGS)
    assert not report.promote
    assert reason in report.reason


def test_labels_that_are_not_believed_refuse_before_anything_else() -> None:
    audit = Audit(
        kept=frozenset(),
        set_aside={"cy": "cy is set aside: 9 of 10 labels contradict what all others say"},
        noise=0.31,
        refused="31 of 100 labels (31.0%) contradict all others",
        doubted=[],
        analysts=[],
        figures={"judged": 100},
    )
    report = decide(judged(), judged(found=0), SETTINGS, audit=audit)
    assert failed(report)[0] == "labels"
    assert report.reason.startswith("Refused: the labels are not believed: 31 of 100 labels (31.0%) contradict all")
    assert "cy is set aside" in report.reason


def test_releases_that_judged_different_sessions_cannot_be_compared() -> None:
    with pytest.raises(StateError, match=r"must have judged the same sessions with the same labels; they judged 460"):
        decide(judged(), judged(attacks=61), SETTINGS)


def test_sessions_that_nobody_judged_count_as_benign_and_labelled_history_does_not() -> None:
    champion = judged(attacks=20, found=20, benign=200, flagged=0)
    labels = list(champion.label)
    labels[20:60] = ["benign"] * 40
    held_out = champion.held_out.copy()
    held_out[20:40] = False
    report = decide(
        replace(champion, label=labels, held_out=held_out), replace(champion, label=labels, held_out=held_out), SETTINGS
    )
    assert (report.benign, report.benign_labelled) == (180, 20)


def test_the_report_is_json_and_the_same_each_time() -> None:
    reports = [decide(judged(), judged(found=49), SETTINGS) for _ in range(2)]
    first, second = (orjson.dumps(msgspec.to_builtins(report), option=orjson.OPT_SORT_KEYS) for report in reports)
    assert first == second
