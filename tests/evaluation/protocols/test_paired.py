"""`paired`: the same tasks, clean and injected, and every injection in other words."""

from __future__ import annotations

from collections import Counter
from functools import cache

import msgspec

from evaluation.protocols.paired import paired
from evaluation.rewrites.variants import REWRITES
from evaluation.spans import runs, words_of
from evaluation.split import Caps, base_of, split
from evaluation.trial import Nothing, Trial
from tests.evaluation.office import GOALS, TEMPLATES, corpus

CORPUS = corpus()
HALVES = split(CORPUS, 0, Caps(sites=6))


@cache
def _trial() -> Trial:
    made = paired(CORPUS, HALVES)
    assert isinstance(made, Trial)
    return made


def test_every_clean_and_injected_session_of_the_test_half_is_judged_and_each_family_rewritten() -> None:
    count = Counter((probe.label, probe.family) for probe in _trial().probes)
    # Two tenants, four tasks each: three clean runs, four goals a family.
    assert count.pop(("benign", "")) == 2 * 4 * 3
    for family in TEMPLATES:
        assert count.pop(("attack", family)) == 2 * 4 * 4
        for rewrite in REWRITES:
            assert count.pop(("attack", f"{family}+{rewrite}")) == 6
    assert count == {("control", "ctrl"): 2 * 6}
    # 32 sites of each of two families, of which each of five rewrites and controls draws six.
    assert _trial().figures == {"injections": 64, "without_twin": 0, "sites_not_drawn": 2 * 6 * (32 - 6)}


def test_nothing_of_what_is_judged_is_learned_and_names_are_each_their_own() -> None:
    trial = _trial()
    learned = {f"{s.tenant}/{base_of(s)}" for s in trial.learn}
    assert learned.isdisjoint(probe.cluster for probe in trial.probes)
    names = [(s.tenant, s.session) for s in [*trial.learn, *(probe.session for probe in trial.probes)]]
    assert len(set(names)) == len(names)
    starts = [probe.session.start_ms or 0 for probe in trial.probes]
    assert starts == sorted(starts)
    assert starts[0] > max(s.start_ms or 0 for s in trial.learn)


def test_rewrites_say_the_goal_alone_or_nothing_of_the_corpus_at_all() -> None:
    templates = set().union(*(runs(words_of(text.format("")).words) for text in TEMPLATES.values()))
    goals = set().union(*(runs(words_of(goal).words, 4) for goal in GOALS))
    for probe in _trial().probes:
        rewrite = probe.family.partition("+")[2] or (probe.family == "ctrl" and "ctrl")
        if not rewrite:
            continue
        words = words_of("\n".join(turn.text for turn in probe.session.turns)).words
        assert templates.isdisjoint(runs(words))
        assert goals.isdisjoint(runs(words, 4)) == (rewrite != "goal")


def test_obeyed_and_ignored_are_told_of_injections_alone() -> None:
    for probe in _trial().probes:
        if probe.label == "attack" and "+" not in probe.family:
            calls = [call.name for turn in probe.session.turns for call in turn.tool_calls]
            assert probe.obeyed == ("act" in calls)
        else:
            assert probe.obeyed is None


def test_injections_without_a_clean_twin_are_judged_and_counted_but_not_rewritten() -> None:
    lone = [
        msgspec.structs.replace(s, task="office/99", session=f"{s.session} again")
        for s in CORPUS.placed["north"]
        if s.task == "office/0"
    ]
    made = paired(*((own := corpus([*CORPUS.sessions, *lone])), split(own, 0, Caps(sites=3))))
    assert isinstance(made, Trial)
    assert made.figures["without_twin"] == len(lone) == 8
    assert made.figures["injections"] == 64 + 8


def test_a_corpus_without_tasks_has_nothing_for_it() -> None:
    bare = corpus([msgspec.structs.replace(s, task=None) for s in CORPUS.sessions])
    made = paired(bare, split(bare, 0))
    assert isinstance(made, Nothing)
    assert "no learned tenant" in made.reason
