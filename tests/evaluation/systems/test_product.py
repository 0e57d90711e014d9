"""The product is judged by what its core says, one session at a time."""

from __future__ import annotations

import msgspec
import numpy as np
import orjson
import pytest

from evaluation.events import Events, events_of
from evaluation.systems.product import Product, Tidegate, Without
from evaluation.systems.system import ALONE
from models.tail import FLOOR
from sample.records import ATTACKS
from stream.core import Core
from stream.errors import UsageError
from stream.state.schema import KINDS, KNOWN_ATTACK, NOVELTY, ROLE_SURPRISE
from stream.training.gather import sessions_of
from stream.training.passes import run
from tests.evaluation.systems.small import (
    QUICK,
    SETTINGS,
    embedder,
    judged,
    judged_sessions,
    later,
    learned,
    product,
)

NOMINAL = SETTINGS.decision.session_fpr


def tidegate() -> Tidegate:
    return Tidegate("tidegate", product())


def alone(row: int) -> Events:
    return events_of([judged().sessions[row]], SETTINGS)


def test_a_session_is_judged_the_same_alone_and_among_others() -> None:
    together = tidegate().judge(judged())
    for row in range(0, len(judged().sessions), 3):
        one = tidegate().judge(alone(row))
        assert one.score[0] == together.score[row]
        assert (one.p[0], one.first_turn[0], one.signal[0]) == (
            together.p[row],
            together.first_turn[row],
            together.signal[row],
        )


def test_what_an_event_takes_is_told_by_whole_sessions_an_event_at_a_time_and_an_ablation_takes_as_long() -> None:
    ablation = Without("tidegate-novelty", product(), [NOVELTY])
    ablation.fit(learned(), 1)
    own = tidegate().judge(judged()).alone_ms
    assert len(own) == len(judged()) < ALONE
    assert min(own) > 0
    assert ablation.judge(judged()).alone_ms == own


def test_a_session_does_not_make_its_tenant_older_nor_its_key_known_for_the_next() -> None:
    """A tenant never seen, with as many sessions as end its youth, of which each is its first."""
    own = [s for s in judged_sessions() if s.tenant == "mint-math" and s.label == "benign"]
    first = msgspec.structs.replace(own[0], tenant="nobody")
    crowd = [msgspec.structs.replace(later(first, i), session=f"s{i}", key="k9") for i in range(12)]
    said = tidegate().judge(events_of(crowd, SETTINGS))
    assert len(set(said.p.tolist())) == 1


def test_p_is_the_least_that_the_core_says_of_a_session() -> None:
    """By the score records of a core that has learned what was learned, and hears this session next."""
    said = tidegate().judge(judged())
    for row in (0, 7, 20):
        core = Core(SETTINGS, product().release, embedder(), learning=False)
        scores = [orjson.loads(score.value) for score in run(core, alone(row).records)]
        assert said.p[row] == pytest.approx(min(score["p_combined"] for score in scores), rel=1e-5)
        flagged = [turn for turn, score in enumerate(scores) if score["decision"] == "finding"]
        assert said.first_turn[row] == (flagged[0] if flagged else -1)


def test_a_tenant_never_seen_is_a_newcomer_here_as_in_service() -> None:
    injected = next(session for session in judged_sessions() if session.label == "attack")
    events = events_of([msgspec.structs.replace(injected, tenant="nobody")], SETTINGS)
    core = Core(SETTINGS, product().release, embedder(), learning=False)
    scores = [orjson.loads(score.value)["p_combined"] for score in run(core, events.records)]
    assert 0 < min(scores) < 1
    assert tidegate().judge(events).p[0] == pytest.approx(min(scores), rel=1e-5)
    # Its p-value would be a third of that, were it known: exp(1.1) is 3.004.
    calibration = product().release.calibration
    assert calibration.newcomer_nats == 1.1
    said = product().said(events)
    assert said.newcomer.all()
    level = calibration.surprise(said.p, said.eligible)[1].max()
    assert min(scores) == pytest.approx(min(3.004 * float(np.exp(-level)), 1), rel=1e-3)


def test_scores_go_on_where_p_values_end() -> None:
    said = tidegate().judge(judged())
    above = said.p > FLOOR
    assert np.exp(-said.score[above]) == pytest.approx(said.p[above], rel=1e-5)
    assert len(np.unique(said.score[said.p <= NOMINAL])) == (said.p <= NOMINAL).sum()


def test_attacks_are_stranger_than_benign_sessions_though_no_label_was_seen() -> None:
    said = tidegate().judge(judged())
    attack = np.array([session.label == "attack" for session in judged().sessions])
    assert np.median(said.score[attack]) > np.median(said.score[~attack])
    assert set(said.signal) <= {"", *KINDS}


def test_one_release_serves_all_who_ask_for_the_same() -> None:
    release = product().release
    product().fit(learned(), 1, ())
    assert product().release is release
    assert product().said(judged()) is product().said(judged())


@pytest.mark.parametrize("kind", [NOVELTY, ROLE_SURPRISE, KNOWN_ATTACK])
def test_an_ablation_is_what_a_core_says_that_never_hears_the_signal(kind: int) -> None:
    ablation = Without("less", product(), [kind])
    ablation.fit(learned(), 1)
    said = ablation.judge(judged())
    assert KINDS[kind] not in said.signal
    for row in (0, 7, 20):
        core = Core(SETTINGS, ablation.release, embedder(), learning=False)
        scores = [orjson.loads(score.value) for score in run(core, alone(row).records)]
        assert said.p[row] == pytest.approx(min(score["p_combined"] for score in scores), rel=1e-5)
    assert (said.score != tidegate().judge(judged()).score).any()


def test_a_given_release_hears_what_the_others_learn() -> None:
    """A tenant that it did not know has a past once it was heard, and tenants that were not heard keep theirs."""
    math = [s for s in learned().sessions if s.tenant == "mint-math"]
    heard = events_of([msgspec.structs.replace(session, tenant="newcomer") for session in math], SETTINGS)
    given = Product(SETTINGS, embedder(), release=product().release)
    given.fit(heard, 1, ())
    rows, before = given.release.warm_rows, product().release
    assert set(rows) == {*before.warm_rows, "newcomer"}
    assert given.release.warm["sessions"][rows["newcomer"]] == len(math)
    memory = before.warm["memory"][before.warm_rows["mint-math"]]
    assert (given.release.warm["memory"][rows["mint-math"]] == memory).all()
    with pytest.raises(UsageError, match=r"an ablation needs a release that is trained for it\. Leave out --release"):
        Without("less", given, [NOVELTY]).fit(heard, 1)


def test_only_the_labelled_product_learns_attacks() -> None:
    attacks = list(sessions_of(ATTACKS))[::12]
    few = events_of(learned().sessions[::4], SETTINGS)
    labelled, plain = (Product(SETTINGS, embedder(), labelled=told, effort=QUICK) for told in (True, False))
    labelled.fit(few, 1, attacks)
    plain.fit(few, 1, attacks)
    known = [made.release.texts.attacks for made in (labelled, plain)]
    assert known[0] is not None and known[1] is not None
    # Both know what was written for them, and the labels teach one of them more.
    assert not np.array_equal(known[0].to_arrays()["weights"], known[1].to_arrays()["weights"])
    release = product().release
    product().fit(learned(), 1, attacks)
    assert product().release is release
