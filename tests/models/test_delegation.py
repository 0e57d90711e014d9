"""Requests that hand over to a text are told from others, and cover a bounded part of what it orders."""

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from models.delegation import COVERED_MAX, FROM, MANY_COST, MANY_MAX, SLOPE, Delegation
from models.ngrams import COLUMNS, NGrams, token_shapes
from models.training.delegation import fit_delegation
from tests.models.texts import TOKENS, bags_of

_HANDS_OVER = [f"{do} what the {what} from {whom} says" for do in ("Do", "Please do", "Just do", "Go and do")
               for what in ("note", "letter", "list", "page") for whom in ("Ann", "Bob", "my boss")]  # fmt: skip
_SAYS_IT = [f"{do} the {what} from {whom} to {other}" for do in ("Send", "Please move", "Read", "Translate")
            for what in ("note", "letter", "list", "page") for whom in ("Ann", "Bob", "my boss")
            for other in ("Eve", "the archive")]  # fmt: skip


@cache
def _fitted() -> tuple[Delegation, NGrams]:
    bags = bags_of([*_HANDS_OVER, *_SAYS_IT])
    delegating = np.arange(len(bags.offsets) - 1) < len(_HANDS_OVER)
    grams = NGrams.fit(bags, np.zeros(len(delegating), np.int64), token_shapes(TOKENS))
    weight = np.where(delegating, 1 / len(_HANDS_OVER), 1 / len(_SAYS_IT))
    return Delegation(fit_delegation(bags, delegating, weight, grams, seed=1)), grams


def _covered(*messages: list[str]) -> list[float]:
    model, grams = _fitted()
    number = np.repeat(np.arange(len(messages)), [len(message) for message in messages])
    covered: list[float] = model.covered(
        bags_of([text for message in messages for text in message]), number, grams
    ).tolist()
    return covered


def test_a_request_to_do_what_a_text_says_covers_more_than_one_that_says_all() -> None:
    over, whole = _covered(
        ["Could you do what the mail from Zoe says, please"], ["Forward the mail from Zoe to Mia, please"]
    )
    assert over > whole + 1


def test_one_sentence_of_a_message_hands_over_and_the_more_there_are_the_less() -> None:
    one = "Please do what the letter from Ann says"
    rest = ["Translate the page from Eve to Bob", "Read the list from my boss to the archive"]
    model, grams = _fitted()
    odds = float(model.score(bags_of([one]), grams)[0])
    for times in (0, 1, 20, 200):
        message = [one, *(rest * times)]
        # By hand: the highest log-odds less one for each e-fold of segments, of 64 at most.
        expected = np.clip(SLOPE * (odds - MANY_COST * np.log(min(len(message), MANY_MAX)) - FROM), 0, COVERED_MAX)
        assert _covered(message) == pytest.approx([expected], abs=1e-4)


@pytest.mark.parametrize(
    ("constant", "covered"),
    # A text without tokens has the constant, so this is the line of the docstring: SLOPE from FROM on, within bounds.
    [(FROM - 9, 0.0), (FROM, 0.0), (FROM + 0.25, 0.25 * SLOPE), (FROM + COVERED_MAX / SLOPE, COVERED_MAX), (90.0, 2.0)],
)  # fmt: skip
def test_what_is_covered_is_within_its_bounds(constant: float, covered: float) -> None:
    arrays: dict[str, NDArray[np.generic]] = {
        "weights": np.zeros(COLUMNS, np.int8),
        "scales": np.zeros(2),
        "constant": np.array(constant),
    }
    _, grams = _fitted()
    assert Delegation(arrays).covered(bags_of([""]), np.zeros(1, np.int64), grams).tolist() == [covered]


def test_a_request_has_the_same_bits_in_any_batch() -> None:
    model, grams = _fitted()
    texts = [*_SAYS_IT[:9], *_HANDS_OVER[:9]]
    together = model.score(bags_of(texts), grams)
    alone = np.concatenate([model.score(bags_of([text]), grams) for text in texts])
    assert together.tobytes() == alone.tobytes()


def test_arrays_that_are_none_of_its_own_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"delegation needs the arrays .*'weights'.*; got "):
        Delegation({"constant": np.array(0.0)})
