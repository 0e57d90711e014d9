"""One dense autoencoder per tenant, as NVIDIA's Digital Fingerprinting (DFP) has one per user.

Legend: t models, b events of a step, f columns, h hidden, c code.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from evaluation.features import Features
from evaluation.systems.dense import Dense

_DIRECTIONS, _HIDDEN, _CODE = 64, 64, 16
_STEPS, _BATCH, _RATE = 200, 64, 3e-3
_SWAPPED = 0.15
"""Share of the columns that are another event's, from which DFP's autoencoder, too, must tell the event's own."""
_EVENTS_MIN = 50
"""Of a tenant for a model of its own; others share that of all tenants together, as DFP's generic user is."""
_LOSS_MIN = 1e-3


class DenseAutoencoder:
    """Reconstruction error of an event's columns by its tenant's autoencoder, in deviations of what it learned with.

    All tenants' models are fitted side by side, as batched products.

    References
    ----------
    NVIDIA (2022), Morpheus: Digital Fingerprinting. Sakurada and Yairi (2014), Anomaly detection using autoencoders
    with nonlinear dimensionality reduction.
    """

    def __init__(self) -> None:
        self._dense: Dense | None = None
        self._models: _Models | None = None
        self._row: dict[str, int] = {}
        self._mean = self._deviation = np.zeros(0)

    def fit(self, learn: Features, seed: int) -> None:
        """Fit the models; row 0 is that of all tenants."""
        self._dense = Dense(learn, _DIRECTIONS, seed)
        x = self._dense(learn)
        names, count = np.unique(learn.tenant, return_counts=True)
        own = [str(name) for name, events in zip(names, count.tolist(), strict=True) if events >= _EVENTS_MIN]
        self._row = {name: row for row, name in enumerate(own, 1)}
        parts = [np.arange(len(x)), *(np.flatnonzero(learn.tenant == name) for name in own)]
        self._models = _fitted(x, parts, seed)
        loss = [self._models.loss(x[part], np.full(len(part), row)) for row, part in enumerate(parts)]
        self._mean = np.array([values.mean() for values in loss])
        self._deviation = np.array([max(values.std(), _LOSS_MIN) for values in loss])

    def score(self, events: Features) -> NDArray[np.float64]:
        """Scores (n,)."""
        if self._models is None or self._dense is None:
            raise ValueError("a detector must be fitted before it scores. A bug.")
        row = np.array([self._row.get(str(name), 0) for name in events.tenant], np.int64)
        loss = self._models.loss(self._dense(events), row)
        return (loss - self._mean[row]) / self._deviation[row]


class _Models(nn.Module):
    """Autoencoders f -> h -> c -> h -> f, one of each of t."""

    def __init__(self, models: int, columns: int, random: torch.Generator) -> None:
        super().__init__()
        sizes = pairwise([columns, _HIDDEN, _CODE, _HIDDEN, columns])
        drawn = [torch.randn(models, a, b, generator=random) * (2 / (a + b)) ** 0.5 for a, b in sizes]
        self.weights = nn.ParameterList(drawn)
        self.biases = nn.ParameterList([torch.zeros(models, 1, weight.shape[2]) for weight in drawn])

    def forward(self, x: torch.Tensor, rows: slice) -> torch.Tensor:
        """Reconstructions of `x` (t, b, f) by the models `rows`, t of them."""
        last = len(self.weights) - 1
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias[rows], x, weight[rows])
            x = functional.silu(x) if number < last else x
        return x

    def loss(self, x: NDArray[np.float32], model: NDArray[np.int64]) -> NDArray[np.float64]:
        """Mean squared error (n,) of `x` (n, f), each by its model."""
        out = np.zeros(len(x))
        with torch.inference_mode():
            for row in np.unique(model).tolist():
                mine = np.flatnonzero(model == row)
                own = torch.from_numpy(x[mine])[None]  # (1, b, f)
                out[mine] = (self(own, slice(row, row + 1)) - own).square().mean(dim=2)[0].double().numpy()
        return out


def _fitted(x: NDArray[np.float32], parts: Sequence[NDArray[np.intp]], seed: int) -> _Models:
    """Models of the `parts` (t) of `x` (n, f)."""
    random = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    models = _Models(len(parts), x.shape[1], random)
    optimiser = torch.optim.AdamW(models.parameters(), lr=_RATE, weight_decay=1e-4)
    for _ in range(_STEPS):
        # (t, b) -> (t, b, f); the same rows in another order lend the columns that are swapped.
        drawn = np.stack([rng.choice(part, _BATCH) for part in parts])
        clean = torch.from_numpy(x[drawn])
        swapped = torch.rand(clean.shape, generator=random) < _SWAPPED
        given = torch.where(swapped, clean.roll(1, dims=1), clean)
        # The sum over models: each has its own gradient, whatever the others' is.
        loss = (models(given, slice(None)) - clean).square().mean(dim=(1, 2)).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return models.eval()
