"""Names say nothing, and time says only what comes first."""

from __future__ import annotations

from itertools import pairwise

from evaluation.placing import BEGIN_MS, PROBE_MS, learned, named, placed_on, probed
from evaluation.trial import Probe
from schemas.corpus import Turn
from tests.evaluation.office import attacks, chat, clean, injected


def test_a_name_tells_neither_label_nor_task_and_differs_by_what_was_made_of_it() -> None:
    own = injected("north", 1, "indirect.urgent", "Wire.")
    names = {named(own).session, named(own, "goal").session, named(clean("north", 1, 0)).session}
    assert len(names) == 3
    assert all(len(name) == len("s-") + 16 and name.startswith("s-") for name in names)
    assert named(own) == named(own)


def test_a_foreign_session_takes_its_host_s_key_model_and_system_message() -> None:
    host = clean("north", 1, 2)
    placed = placed_on(attacks()[0], host)
    assert (placed.tenant, placed.model, placed.key) == ("north", "model-2", None)
    assert placed.turns == (host.turns[0], *attacks()[0].turns)
    assert placed_on(attacks()[0], chat("east", 1, "talk")).key == "k1"


def test_a_session_with_a_system_message_of_its_own_keeps_it() -> None:
    own = clean("south", 1, 0)
    assert placed_on(own, clean("north", 1, 0)).turns[0] == Turn("system", "You work for south.")


def test_what_is_learned_comes_first_and_in_order() -> None:
    sessions = learned([clean("north", task, 0) for task in range(8)] + [chat("east", 0, "talk")], seed=0)
    starts = [s.start_ms or 0 for s in sessions]
    assert starts == sorted(starts)
    assert starts[-1] < BEGIN_MS
    assert not any(s.calls_ms for s in sessions)


def test_probes_of_one_tenant_never_share_ten_minutes() -> None:
    own = [Probe(named(clean("north", task, run)), "benign", "", "") for task in range(8) for run in range(3)]
    dated = probed(own, seed=0)
    starts = [probe.session.start_ms or 0 for probe in dated]
    assert starts[0] >= BEGIN_MS
    assert min(b - a for a, b in pairwise(starts)) > PROBE_MS / 2 > 600_000
    assert {probe.session.session for probe in dated} == {probe.session.session for probe in own}
