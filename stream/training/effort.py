"""How much work a training is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to fit: what is held out must be met by as good a fit."""

    epochs: int = 20
    """Of the backbone, `models.training.autoencoder.Fit`."""
    steps_min: int = 400
    adapter_steps: int = 240
    """Of the adapters, `models.training.adapters.FitAdapters`; 0 leaves them zero."""
    passes: int = 12
    """Of the text models' regressions, over what they learn; AUROC does not change with more of them."""
    splices: float = 1.0
    """Share of the splices that text models learn, of those that `Fit` has in each one's module."""
