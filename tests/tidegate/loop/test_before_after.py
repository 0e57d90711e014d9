"""Two releases on the same sessions: expected numbers are counted by hand from the p-values given here."""

import pytest

from schemas.corpus_records import Truth
from tidegate.loop.before_after import Heard, Point, compare, draw


def truth(number: int, label: str, family: str | None = None) -> Truth:
    return Truth(
        call_id=str(number),
        event_id=f"{number:064x}",
        session=f"s{number}",
        gateway_session=f"s{number}",
        tenant="t",
        label=label,
        attack_family=family,
        task=None,
        source="test",
        call_index=0,
        payload=(),
        payload_new=False,
    )


TRUTHS = {
    **{("t", f"a{n}"): truth(n, "attack", "jailbreak.template.x" if n < 2 else "direct") for n in range(4)},
    **{("t", f"b{n}"): truth(n, "benign") for n in range(10)},
}


def heard(attacks: list[float], benign: list[float], threshold: float) -> Heard:
    """One event a session with its p-value; found where that is at or below the threshold."""
    said = Heard()
    for kind, values in (("a", attacks), ("b", benign)):
        for number, p in enumerate(values):
            decision = "finding" if p <= threshold else "none"
            said.score(
                {"tenant": "t", "session": f"{kind}{number}", "release": "r", "p_combined": p, "decision": decision}
            )
    return said


BENIGN = [0.02, 0.03, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
BEFORE = heard([0.01, 0.04, 0.5, 0.6], BENIGN, 0.05)
AFTER = heard([0.001, 0.002, 0.025, 0.6], BENIGN, 0.025)


def test_as_decided_counts_what_the_stream_found() -> None:
    before, after = compare(TRUTHS, BEFORE, AFTER).decided
    assert before == Point(found=2, missed=2, flagged=2, benign=10)
    assert after == Point(found=3, missed=1, flagged=1, benign=10)
    assert before.rate == pytest.approx(0.2)


def test_at_the_same_rate_both_flag_as_many_benign_sessions_as_the_earlier_one_did() -> None:
    compared = compare(TRUTHS, BEFORE, AFTER)
    before, after = compared.same_rate
    # Two benign sessions lie below 0.2, the third rarest: of the attacks two and three do.
    assert before == Point(found=2, missed=2, flagged=2, benign=10)
    assert after == Point(found=3, missed=1, flagged=2, benign=10)
    assert compared.fewer_missed == pytest.approx(0.5)


def test_at_the_same_recall_both_find_as_many_attacks_as_the_earlier_one_did() -> None:
    compared = compare(TRUTHS, BEFORE, AFTER)
    before, after = compared.same_recall
    # The second rarest attack lies at 0.04 before, two benign sessions below it; at 0.002 after, and none.
    assert (before.found, before.flagged) == (2, 2)
    assert (after.found, after.flagged) == (2, 0)
    assert compared.fewer_flagged == pytest.approx(1.0)


def test_families_are_told_apart_by_their_first_two_names() -> None:
    assert compare(TRUTHS, BEFORE, AFTER).families == {"direct": (2, 0, 1), "jailbreak.template": (2, 2, 2)}


def test_a_session_without_a_score_counts_as_ordinary() -> None:
    decided = compare(TRUTHS, Heard(), AFTER).decided
    assert decided[0] == Point(found=0, missed=4, flagged=0, benign=10)


def test_a_release_that_finds_nothing_more_is_no_better() -> None:
    compared = compare(TRUTHS, BEFORE, BEFORE)
    assert (compared.fewer_missed, compared.fewer_flagged) == (0, 0)


def test_the_picture_names_both_releases() -> None:
    figure = draw(compare(TRUTHS, BEFORE, AFTER), ("r-one", "r-other"))
    legend = figure.axes[1].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["before: r-one", "after: r-other"]
