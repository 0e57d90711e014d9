"""What was said is learned from once for each tenant, and not from the fold that is held out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from stream.steps.content import ASSISTANT, CALL, SYSTEM, TOOL, USER
from stream.training.said import TrainingTexts, collect_texts
from tests.stream.training.captures import SETTINGS, corpus, session
from tests.stream.training.test_texts import EMBEDDER, arranged, collected


def said(texts: TrainingTexts) -> list[tuple[int, int, int, tuple[int, ...]]]:
    """Tenant, role, folds and tokens of each segment."""
    bags = np.split(texts.bags.ids, texts.bags.offsets[1:-1])
    return [
        (tenant, role, folds, tuple(bag.tolist()))
        for tenant, role, folds, bag in zip(
            texts.tenant.tolist(), texts.role.tolist(), texts.folds.tolist(), bags, strict=True
        )
    ]


def tokens(text: str) -> tuple[int, ...]:
    return tuple(EMBEDDER.encode([text]).ids.tolist())


def test_everybody_s_words_are_there_in_their_roles(tmp_path: Path) -> None:
    turns = [
        {"role": "system", "text": "be brief"},
        {"role": "user", "text": "what flies to rome"},
        {"role": "assistant", "text": "let me see", "tool_calls": [{"name": "search", "args": {"to": "rome"}}]},
        {"role": "tool", "text": "two planes"},
        {"role": "assistant", "text": "there are two"},
    ]
    told = said(collected(tmp_path / "c.jsonl", [session(0, turns=turns)]))
    # The history comes again with the second call: each message is there once.
    assert Counter((role, words) for _, role, _, words in told) == Counter(
        {
            (SYSTEM, tokens("be brief")): 1,
            (USER, tokens("what flies to rome")): 1,
            (ASSISTANT, tokens("let me see")): 1,
            (CALL, tokens('search {"to":"rome"}')): 1,
            (TOOL, tokens("two planes")): 1,
            (ASSISTANT, tokens("there are two")): 1,
        }
    )


def test_what_tenants_say_alike_is_each_one_s_and_what_one_repeats_is_once(tmp_path: Path) -> None:
    alike = [{"role": "user", "text": "good morning"}, {"role": "assistant", "text": "to you too"}]
    lines = [session(i, f"team-{i % 2}", turns=alike, task=f"t{i}") for i in range(6)]
    told = said(collected(tmp_path / "c.jsonl", lines))
    assert Counter((tenant, role) for tenant, role, _, _ in told) == Counter(
        {(0, USER): 1, (0, ASSISTANT): 1, (1, USER): 1, (1, ASSISTANT): 1}
    )


def test_a_message_is_held_out_only_where_no_other_fold_has_it(tmp_path: Path) -> None:
    events = arranged(tmp_path / "c.jsonl", corpus(60))
    texts = collect_texts(events, EMBEDDER, SETTINGS)
    # Words here are drawn: what one session says no other does, so each message is of one fold.
    folds = np.unique(events.fold).tolist()
    assert set(texts.folds.tolist()) == {1 << fold for fold in folds}
    for fold in folds:
        rest = texts.without(fold)
        assert sorted(said(rest)) == sorted(each for each in said(texts) if each[2] != 1 << fold)
        assert len(rest.role) < len(texts.role)
    alike = [{"role": "user", "text": "good morning"}, {"role": "assistant", "text": "to you too"}]
    both = collected(tmp_path / "d.jsonl", [session(i, turns=alike, task=f"t{i}") for i in range(20)])
    assert len(both.folds) == 2
    assert all(len(both.without(fold).role) == 2 for fold in folds)
