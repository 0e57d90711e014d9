"""What kind of known attack a segment resembles: a linear model of n-grams a class, learnt from attacks and others.

It recognises the wording of attacks it was shown and little else; what it has not seen is left to the other signals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.ngrams import COLUMNS, Features, NGrams
from models.wordpiece import TokenBags

CLASSES = ("injection", "jailbreak", "exfiltration", "prompt_extraction", "abuse")
NOT_LEARNT = -20.0
"""Log-odds of a class that had no examples."""


class AttackClassifier:
    """Log-odds of each class of attack; a segment may be of several.

    Sums of whole numbers, as in `RoleSurprise`: a score has the same bits in any batch. Calibration is part of the
    units and constants: sigmoid(score) is the share of the class among held-out segments with that score, as training
    weighs them. Attacks weigh half there, and next to nothing in traffic: a score ranks and names, and a threshold is
    calibrated on traffic.

    Parameters
    ----------
    arrays
        ``weights`` int8 (classes, COLUMNS), in ``units`` float64 (classes, 2) of each block; ``constants`` float64
        (classes,). A class that was not learnt has weights 0 and the constant `NOT_LEARNT`.

    References
    ----------
    Joulin et al. (2017), Bag of tricks for efficient text classification; Platt (1999), Probabilistic outputs.
    """

    name = "known_attack"
    scale = "raised"
    classes = CLASSES

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        check(arrays)
        self._arrays = dict(arrays)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> AttackClassifier:
        """The model of a release.

        Raises
        ------
        ValueError
            Where an array is missing, unknown, or not of the type and shape it must have.
        """
        return cls(arrays)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """What a release holds of the model."""
        return dict(self._arrays)

    def score(self, features: Features) -> NDArray[np.float32]:
        """Log-odds (s, classes) of the segments whose `features` come from the release's n-grams."""
        logits = np.empty((len(features), len(CLASSES)), np.float32)
        parts = zip(self._arrays["weights"], self._arrays["units"], self._arrays["constants"], strict=True)
        for place, (weights, units, constant) in enumerate(parts):
            logits[:, place] = features.linear(weights, units) + constant
        return logits

    def explain(self, bags: TokenBags, ngrams: NGrams, place: int) -> NDArray[np.float32]:
        """What each token (t,) of the segments `bags` adds to the log-odds of class `place`."""
        shares = ngrams.shares(bags, self._arrays["weights"][place], self._arrays["units"][place])
        return shares.astype(np.float32)


def check(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse arrays that are not those of an `AttackClassifier`, with a ValueError that names the array."""
    count = len(CLASSES)
    shapes = {
        "weights": (np.int8, (count, COLUMNS)),
        "units": (np.float64, (count, 2)),
        "constants": (np.float64, (count,)),
    }
    if arrays.keys() != shapes.keys():
        raise ValueError(f"an attack classifier needs the arrays {sorted(shapes)}; got {sorted(arrays)}.")
    for name, (dtype, shape) in shapes.items():
        array = arrays[name]
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(f"{name} must be {np.dtype(dtype)} {shape}; got {array.dtype} {array.shape}.")
        if dtype == np.float64 and not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite; got {array.tolist()}.")
