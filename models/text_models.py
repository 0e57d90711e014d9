"""A release's models of text, which share one reading of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.attack_classifier import AttackClassifier
from models.ngrams import NGrams
from models.role_surprise import RoleSurprise
from models.second_look import SecondLook, Transforms
from models.wordpiece import TokenBags

_MASKS = "ngrams.masks"
_ROLE, _ATTACKS, _SECOND = "role_surprise.", "known_attack.", "transformer."


class TextModels:
    """Segments to log-odds: that no tool wrote it, and, where there is a classifier, of each class of known attacks.

    Parameters
    ----------
    ngrams
        What both models read.
    role_surprise
        None says nothing of any text.
    attacks
        None where nobody has labelled any.
    second
        What a transformer adds, once there is one: `looking_again`.
    """

    def __init__(
        self,
        ngrams: NGrams,
        role_surprise: RoleSurprise | None,
        attacks: AttackClassifier | None = None,
        second: SecondLook | None = None,
    ) -> None:
        self.ngrams = ngrams
        self.role_surprise = role_surprise
        self.attacks = attacks
        self.second = second
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
        models = TextModels(self.ngrams, self.role_surprise, self.attacks, self.second)
        models._transformer = transformer
        return models

    def score(self, bags: TokenBags, again: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """Log-odds (s, c) of texts, NaN where there is no model.

        `again` (s,) are those that a transformer may look at; all where it is None.
        """
        out = np.full((len(bags.offsets) - 1, self.columns), np.nan, np.float32)
        if self.role_surprise is None and self.attacks is None:
            return out
        if self.role_surprise is not None:
            out[:, 0] = self.role_surprise.score(bags, self.ngrams)
            self._look_again(bags, out[:, 0], again)
        if self.attacks is not None:
            out[:, 1:] = self.attacks.score(self.ngrams.features(bags))
        return out

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
        for prefix, model in ((_ROLE, self.role_surprise), (_ATTACKS, self.attacks), (_SECOND, self.second)):
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
        known = (_MASKS, _ROLE, _ATTACKS, _SECOND)
        if _MASKS not in arrays or not all(name.startswith(known) for name in arrays):
            raise ValueError(
                f"text models must hold {_MASKS}, and else {_ROLE}*, {_ATTACKS}* and {_SECOND}*; got {sorted(arrays)}."
            )
        role, attacks, second = (
            {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
            for prefix in (_ROLE, _ATTACKS, _SECOND)
        )
        return cls(
            NGrams(arrays[_MASKS]),
            RoleSurprise.from_arrays(role) if role else None,
            AttackClassifier.from_arrays(attacks) if attacks else None,
            SecondLook(second) if second else None,
        )

    @classmethod
    def silent(cls) -> TextModels:
        """Says nothing of any text."""
        return cls(NGrams(np.zeros(0, np.uint16)), None)
