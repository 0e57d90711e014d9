import re
from itertools import pairwise

import numpy as np
import pytest

from models.ngrams import BLOCK, COLUMNS, SHAPES, NGrams, token_shapes
from models.training.splices import take
from models.wordpiece import TokenBags
from tests.models.texts import TOKENS, bags_of, traffic


def _grams() -> NGrams:
    texts, _, owners = traffic(tenants=10, each=20)
    return NGrams.fit(bags_of(texts), np.array(owners), token_shapes(TOKENS))


def _columns(grams: NGrams, bags: TokenBags) -> list[tuple[set[int], set[int]]]:
    """Columns of each segment by block; fails where a column is there twice."""
    features = grams.features(bags)
    found = []
    for segment in range(len(features)):
        low, middle, high = features.offsets[2 * segment : 2 * segment + 3]
        blocks = features.columns[low:middle].tolist(), features.columns[middle:high].tolist()
        assert all(sorted(set(block)) == block for block in blocks)
        found.append((set(blocks[0]), set(blocks[1])))
    return found


def test_a_segment_has_each_of_its_n_grams_once_and_none_across_its_ends() -> None:
    # No mask changes a token: a b a b has a, b, ab and ba, and in block M aba and bab too.
    grams = NGrams(np.arange(1000, dtype=np.uint16))
    bags = TokenBags(np.array([7, 9, 7, 9, 7, 9, 9], np.uint16), np.array([0, 4, 4, 6, 7]))
    assert grams.features(bags).counts().tolist() == [[4, 6], [0, 0], [3, 3], [1, 1]]
    columns = _columns(grams, bags)
    assert columns[2][0] < columns[0][0]
    assert columns[3][0] < columns[2][0]
    assert all(column < BLOCK for words, _ in columns for column in words)
    assert all(BLOCK <= column < COLUMNS for _, masked in columns for column in masked)


def test_features_of_a_segment_are_the_same_in_any_batch() -> None:
    texts, _, _ = traffic(tenants=3, each=200, seed=3)
    bags = bags_of([*texts, "", "one"])
    grams = _grams()
    together = _columns(grams, bags)
    for size in (1, 7, 600):
        apart = []
        for start in range(0, len(together), size):
            apart += _columns(grams, take(bags, np.arange(start, min(start + size, len(together)))))
        assert apart == together


def test_tokens_of_few_tenants_become_their_shape() -> None:
    texts = ["please pay 17"] * 16 + ["please pay zebra"] * 7
    grams = NGrams.fit(bags_of(texts), np.array([*range(16), *range(7)]), token_shapes(TOKENS))
    of = {token: place for place, token in enumerate(TOKENS)}
    assert grams.masks[of["please"]] == of["please"]
    assert grams.masks[of["17"]] == of["17"]
    zebra, number, mark, continuation = (int(grams.masks[of[token]]) for token in ("zebra", "1984", "?", "##s"))
    assert [SHAPES[place - len(TOKENS)] for place in (zebra, number, mark, continuation)] == [
        "word", "number", "mark", "continuation",
    ]  # fmt: skip
    words, masked = _columns(grams, bags_of(["please pay zebra"]))[0]
    other_words, other_masked = _columns(grams, bags_of(["please pay tiger"]))[0]
    assert masked == other_masked
    assert words != other_words


def test_with_few_tenants_half_of_them_keep_a_token() -> None:
    grams = NGrams.fit(bags_of(["alpha beta", "alpha", "gamma"]), np.array([0, 1, 2]), token_shapes(TOKENS))
    of = {token: place for place, token in enumerate(TOKENS)}
    assert grams.masks[of["alpha"]] == of["alpha"]
    assert grams.masks[of["gamma"]] >= len(TOKENS)


def test_sums_are_those_of_the_columns() -> None:
    rng = np.random.default_rng(5)
    weights = rng.integers(-127, 128, COLUMNS).astype(np.int8)
    grams, bags = _grams(), bags_of(traffic(tenants=1, each=5, seed=9)[0])
    expected = [[sum(int(weights[column]) for column in block) for block in blocks] for blocks in _columns(grams, bags)]
    assert grams.features(bags).sums(weights).tolist() == expected


def test_shares_of_a_segment_without_repetitions_add_up_to_the_linear_model() -> None:
    rng = np.random.default_rng(5)
    weights, units = rng.integers(-127, 128, COLUMNS).astype(np.int8), np.array([0.02, 0.03])
    grams = NGrams(np.arange(len(TOKENS), dtype=np.uint16))
    bags = bags_of(["one two three four", "five", "", "six seven"])
    shares = grams.shares(bags, weights, units)
    added = [shares[low:high].sum() for low, high in pairwise(bags.offsets)]
    np.testing.assert_allclose(added, grams.features(bags).linear(weights, units), atol=1e-12)


def test_no_segments_have_no_features() -> None:
    features = _grams().features(TokenBags(np.zeros(0, np.uint16), np.zeros(1, np.int64)))
    assert len(features) == 0
    assert features.sums(np.ones(COLUMNS, np.int8)).shape == (0, 2)


def test_masks_of_another_vocabulary_are_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("masks must be uint16 (V,) with V at most 65532; got int64 (3,).")):
        NGrams(np.arange(3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=re.escape("masks must be below V + 4 = 7; got 7.")):
        NGrams(np.array([0, 1, 7], np.uint16))
