"""A tagger learns, from nothing but who wrote what, where a user's words begin in a tool's."""

from __future__ import annotations

import numpy as np
import pytest

from models.embedder import StaticEmbedder
from models.minilm import checked_weights
from models.token_tagger import TokenTagger
from models.training.token_tagger import Fit, Sides, averaged, fit_token_tagger

EMBEDDER = StaticEmbedder.load(None, "cpu")


def test_loss_falls_and_what_is_learned_tells_users_from_tools() -> None:
    asked = [
        f"Please book {what} for {who} and tell me the price" for what in ("a room", "a van") for who in "abcdefgh"
    ]
    returned = [f"name: {what} {n}, price: {n * 7}, status: open, rating: {n % 5}" for n in range(8) for what in "uvw"]
    bags = EMBEDDER.encode([*asked, *returned])
    user = np.repeat([1.0, 0.0], [len(asked), len(returned)])
    losses: list[float] = []
    arrays = fit_token_tagger(
        Sides(bags, user, 1 - user, 1 - user), EMBEDDER.vocabulary, checked_weights(), seed=1,
        how=Fit(steps=30, rows=8, warmup_steps=3), progress=lambda _, loss: losses.append(loss),
    )  # fmt: skip
    assert len(losses) == 30 and losses[-1] < losses[0]
    tagger = TokenTagger(arrays)
    order, record = tagger.score(
        EMBEDDER.encode(["Please book a train for z", "name: boat 12, price: 9, status: open"])
    )
    assert order > record


def test_the_mean_of_a_tagger_and_itself_is_that_tagger() -> None:
    packaged = TokenTagger.load(len(EMBEDDER.vocabulary)).to_arrays()
    mean = averaged(packaged, packaged)
    assert mean.keys() == packaged.keys()
    bags = EMBEDDER.encode(["Please book a train for z", "name: boat 12, price: 9, status: open"])
    assert TokenTagger(mean).score(bags) == pytest.approx(TokenTagger(packaged).score(bags), abs=1e-3)


def test_a_mean_lies_between_the_two() -> None:
    packaged = TokenTagger.load(len(EMBEDDER.vocabulary)).to_arrays()
    moved = packaged | {"head": np.zeros_like(packaged["head"]), "head_bias": packaged["head_bias"] + 2.0}
    mean = averaged(packaged, moved)
    assert mean["head"] * mean["head_unit"] == pytest.approx(packaged["head"] * packaged["head_unit"] / 2, rel=1e-3)
    assert float(mean["head_bias"]) == pytest.approx(float(packaged["head_bias"]) + 1.0)
