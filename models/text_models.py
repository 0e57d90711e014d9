"""A release's models of text, which share one reading of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.attack_classifier import AttackClassifier
from models.attack_direction import AttackDirection
from models.delegation import Delegation
from models.ngrams import NGrams
from models.role_surprise import RoleSurprise
from models.second_look import SecondLook, Transforms
from models.token_tagger import TokenTagger
from models.wordpiece import TokenBags

_MASKS = "ngrams.masks"
_ROLE, _ATTACKS, _SECOND, _DIRECTION = "role_surprise.", "known_attack.", "transformer.", "attack_direction."
_TAGGER, _DELEGATION = "token_tagger.", "delegation."
TAGGED_FROM = 1.0
"""Role surprise from which a text is read by the tagger: a twentieth of what tools return in benign traffic."""
TAGGER_SHARE = 0.7
"""What the tagger's log-odds count beside the n-grams', which count the rest."""
TAGGED_MAX = 64
"""Segments of a message that the tagger reads, those that sound most like a user: thousands would take it a minute."""
UNTAGGED = -7.0
"""What the tagger would say at least of a text that it does not read, or of any other."""


class TextModels:
    """Segments to log-odds: that no tool wrote it, and, where there is a classifier, of each class of known attacks.

    Of users' messages they tell besides how far they hand over to texts.

    Parameters
    ----------
    ngrams
        What the linear models read.
    role_surprise
        None says nothing of any text.
    attacks
        None knows of none.
    second
        What a transformer adds to role surprise, once there is one: `looking_again`.
    direction
        What a text's vector adds to each class of attacks.
    tagger
        Reads in their sentences the words of which role surprise is at or above `TAGGED_FROM`.
    delegation
        None takes no request to hand over.
    """

    def __init__(
        self,
        ngrams: NGrams,
        role_surprise: RoleSurprise | None,
        attacks: AttackClassifier | None = None,
        second: SecondLook | None = None,
        direction: AttackDirection | None = None,
        tagger: TokenTagger | None = None,
        delegation: Delegation | None = None,
    ) -> None:
        self.ngrams = ngrams
        self.role_surprise = role_surprise
        self.attacks = attacks
        self.second = second
        self.direction = direction
        self.tagger = tagger
        self.delegation = delegation
        self._transformer: Transforms | None = None
        self.judged = 0
        """Texts that could be looked at again."""
        self.looked_again = 0
        """Those that were."""
        self.classes: tuple[str, ...] = attacks.classes if attacks is not None else ()

    @property
    def columns(self) -> int:
        """c, numbers a text."""
        return 1 + len(self.classes)

    def looking_again(self, transformer: Transforms) -> TextModels:
        """The same models, which let the transformer look at what role surprise is at or above the second's gate.

        Raises
        ------
        ValueError
            Without a second, or with one of another space.
        """
        if self.second is None or self.second.space_id != transformer.space_id:
            found = "none" if self.second is None else self.second.space_id
            raise ValueError(f"it must have a transformer's head, of {transformer.space_id}; it has {found}.")
        models = TextModels(
            self.ngrams, self.role_surprise, self.attacks, self.second, self.direction, self.tagger, self.delegation
        )
        models._transformer = transformer
        return models

    def without_tagger(self) -> TextModels:
        """The same models, of which no tagger reads again what sounds like a user."""
        models = TextModels(
            self.ngrams, self.role_surprise, self.attacks, self.second, self.direction, None, self.delegation
        )
        models._transformer = self._transformer
        return models

    def score(
        self,
        bags: TokenBags,
        vectors: NDArray[np.int8] | None = None,
        again: NDArray[np.bool_] | None = None,
        message: NDArray[np.integer] | None = None,
    ) -> NDArray[np.float32]:
        """Log-odds (s, c) of texts, NaN where there is no model.

        Parameters
        ----------
        vectors
            (s, d) of the texts, unit rows times 127, which a direction needs.
        again
            (s,) those that a transformer and the tagger may look at; all where it is None.
        message
            (s,) numbers of the messages that texts are of; None for a message each. Of one the tagger reads
            `TAGGED_MAX`, and of more that the n-grams find strange it is taken to say what they do.
        """
        out = np.full((len(bags.offsets) - 1, self.columns), np.nan, np.float32)
        if self.role_surprise is None and self.attacks is None:
            return out
        if self.role_surprise is not None:
            out[:, 0] = self.surprise(bags, again, message)
        if self.attacks is not None:
            out[:, 1:] = self.known(bags, vectors)
        return out

    def surprise(
        self, bags: TokenBags, again: NDArray[np.bool_] | None = None, message: NDArray[np.integer] | None = None
    ) -> NDArray[np.float32]:
        """Log-odds (s,) that no tool wrote texts; `again` and `message` as in `score`.

        Raises
        ------
        ValueError
            Without role surprise.
        """
        if self.role_surprise is None:
            raise ValueError("text models without role surprise take nobody for another. A bug.")
        told = self.role_surprise.score(bags, self.ngrams)
        self._look_again(bags, told, again)
        return told if self.tagger is None else self._tagged(self.tagger, bags, told, again, message)

    @staticmethod
    def _tagged(
        tagger: TokenTagger,
        bags: TokenBags,
        told: NDArray[np.float32],
        again: NDArray[np.bool_] | None,
        message: NDArray[np.integer] | None,
    ) -> NDArray[np.float32]:
        """Of what the n-grams have `told` (s,) and the tagger says of those it reads, the weighted mean (s,)."""
        at = np.flatnonzero(told >= TAGGED_FROM if again is None else again & (told >= TAGGED_FROM))
        odds = np.full(len(told), UNTAGGED, np.float32)
        odds[at] = told[at]
        if message is not None:
            at = at[np.lexsort((at, -told[at], message[at]))]
            starts = np.flatnonzero(np.diff(message[at], prepend=-1))
            place = np.arange(len(at)) - np.repeat(starts, np.diff(starts, append=len(at)))
            at = at[place < TAGGED_MAX]
        odds[at] = np.maximum(tagger.score(bags.take(at)), np.float32(UNTAGGED))
        mean: NDArray[np.float32] = np.float32(1 - TAGGER_SHARE) * told + np.float32(TAGGER_SHARE) * odds
        return mean

    def covered(self, bags: TokenBags, message: NDArray[np.integer]) -> NDArray[np.float32]:
        """Log-odds (m,) by which a tool's text may sound like an order after such messages (`Delegation.covered`)."""
        if self.delegation is None:
            return np.zeros(int(message.max(initial=-1)) + 1, np.float32)
        return self.delegation.covered(bags, message, self.ngrams)

    def known(self, bags: TokenBags, vectors: NDArray[np.int8] | None = None) -> NDArray[np.float32]:
        """Log-odds (s, classes) of each class of known attacks: n-grams' and, where there is one, the direction's.

        Raises
        ------
        ValueError
            Without a classifier, or without the vectors that the direction needs.
        """
        if self.attacks is None:
            raise ValueError("text models without a classifier know of no attack. A bug.")
        odds = self.attacks.score(self.ngrams.features(bags))
        if self.direction is None:
            return odds
        if vectors is None:
            raise ValueError("text models with an attack direction need the texts' vectors. A bug.")
        return odds + self.direction.score(vectors)[:, None]

    def _look_again(self, bags: TokenBags, told: NDArray[np.float32], again: NDArray[np.bool_] | None) -> None:
        """Add to what was `told` (s,) of texts; each by itself, whatever it came with."""
        if self._transformer is None or self.second is None:
            return
        may = np.ones(len(told), np.bool_) if again is None else again
        # An empty text has no vector.
        at = np.flatnonzero(may & (told >= self.second.gate) & (np.diff(bags.offsets) > 0))
        self.judged += int(may.sum())
        self.looked_again += len(at)
        if len(at):
            told[at] += self.second.score(self._transformer.embed(bags.take(at)))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """All that it is made of, by name."""
        arrays: dict[str, NDArray[Any]] = {_MASKS: self.ngrams.masks}
        models = (
            (_ROLE, self.role_surprise),
            (_ATTACKS, self.attacks),
            (_SECOND, self.second),
            (_DIRECTION, self.direction),
            (_TAGGER, self.tagger),
            (_DELEGATION, self.delegation),
        )
        for prefix, model in models:
            if model is not None:
                arrays |= {prefix + name: array for name, array in model.to_arrays().items()}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> TextModels:
        """What `to_arrays` took apart.

        Raises
        ------
        ValueError
            An array is missing, unknown, or not as it must be.
        """
        known = (_MASKS, _ROLE, _ATTACKS, _SECOND, _DIRECTION, _TAGGER, _DELEGATION)
        if _MASKS not in arrays or not all(name.startswith(known) for name in arrays):
            raise ValueError(
                f"text models must hold {_MASKS}, and else {', '.join(f'{name}*' for name in known[1:])}; "
                f"got {sorted(arrays)}."
            )
        role, attacks, second, direction, tagger, delegation = (
            {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
            for prefix in known[1:]
        )
        return cls(
            NGrams(arrays[_MASKS]),
            RoleSurprise.from_arrays(role) if role else None,
            AttackClassifier.from_arrays(attacks) if attacks else None,
            SecondLook(second) if second else None,
            AttackDirection(direction) if direction else None,
            TokenTagger(tagger) if tagger else None,
            Delegation(delegation) if delegation else None,
        )

    @classmethod
    def silent(cls) -> TextModels:
        """Says nothing of any text."""
        return cls(NGrams(np.zeros(0, np.uint16)), None)
