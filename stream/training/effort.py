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
    """Over the data, of the regressions of role surprise, known attacks and delegation (`models.training.linear`)."""
    splices: float = 1.0
    """Share of the splices that role surprise and known attacks learn, of those in `Fit` of each."""

    def splices_of(self, most: int) -> int:
        """So many of `most`; some at least, or there would be nothing to weigh."""
        return max(2, round(most * self.splices))
