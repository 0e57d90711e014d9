"""A release's models of text, which share one reading of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.attack_classifier import AttackClassifier
from models.ngrams import NGrams
from models.role_surprise import RoleSurprise
from models.wordpiece import TokenBags

_MASKS = "ngrams.masks"
_ROLE, _ATTACKS = "role_surprise.", "known_attack."


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
    """

    def __init__(
        self, ngrams: NGrams, role_surprise: RoleSurprise | None, attacks: AttackClassifier | None = None
    ) -> None:
        self.ngrams = ngrams
        self.role_surprise = role_surprise
        self.attacks = attacks
        self.classes: tuple[str, ...] = attacks.classes if attacks is not None else ()

    @property
    def columns(self) -> int:
        """c, numbers a text."""
        return 1 + len(self.classes)

    def score(self, bags: TokenBags) -> NDArray[np.float32]:
        """Log-odds (s, c) of texts, NaN where there is no model."""
        out = np.full((len(bags.offsets) - 1, self.columns), np.nan, np.float32)
        if self.role_surprise is None and self.attacks is None:
            return out
        features = self.ngrams.features(bags)
        if self.role_surprise is not None:
            out[:, 0] = self.role_surprise.score(bags, features)
        if self.attacks is not None:
            out[:, 1:] = self.attacks.score(features)
        return out

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """All that it is made of, by name."""
        arrays: dict[str, NDArray[Any]] = {_MASKS: self.ngrams.masks}
        for prefix, model in ((_ROLE, self.role_surprise), (_ATTACKS, self.attacks)):
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
        known = (_MASKS, _ROLE, _ATTACKS)
        if _MASKS not in arrays or not all(name.startswith(known) for name in arrays):
            raise ValueError(
                f"text models must hold {_MASKS}, and else {_ROLE}* and {_ATTACKS}*; got {sorted(arrays)}."
            )
        role, attacks = (
            {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
            for prefix in (_ROLE, _ATTACKS)
        )
        return cls(
            NGrams(arrays[_MASKS]),
            RoleSurprise.from_arrays(role) if role else None,
            AttackClassifier.from_arrays(attacks) if attacks else None,
        )

    @classmethod
    def silent(cls) -> TextModels:
        """Says nothing of any text."""
        return cls(NGrams(np.zeros(0, np.uint16)), None)
