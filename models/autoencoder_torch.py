"""The bank on torch: the same bits as `models.autoencoder`, on a GPU or any other device.

Legend: n windows, S events a window, F features, H encoded features, B bottleneck, R rank, T tenants with an adapter.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from models.autoencoder import check_windows
from models.bank_arrays import ADAPTED, CODE_MAX, GRID, LAYERS, Shape, check_bank


class TorchSequenceBank:
    """`models.autoencoder.SequenceBank` with its arrays on a torch device.

    Parameters
    ----------
    arrays
        As `models.bank_arrays.check_bank` has them.
    device
        Where to compute: "cpu", "cuda", "cuda:1". It must have float64.
    """

    name = "sequence"
    scale = "tenant"

    def __init__(self, arrays: Mapping[str, NDArray[np.generic]], device: str) -> None:
        self.shape: Shape = check_bank(arrays)
        self._device = torch.device(device)
        self._arrays = {name: torch.from_numpy(np.array(array)).to(self._device) for name, array in arrays.items()}
        for layer in LAYERS:
            for part in ("weight", "bias"):
                self._arrays[f"{layer}.{part}"] = self._arrays[f"{layer}.{part}"].float()
        self._step = dict(zip(LAYERS, (2.0 ** -arrays["shifts"].astype(np.float64)).tolist(), strict=True))
        self._feature_weight = self._arrays["feature_weight"].float()
        total = float(arrays["feature_weight"].sum(dtype=np.int64)) * GRID * GRID
        # A tensor, because CUDA multiplies by the reciprocal when it divides by a Python number.
        self._total_weight = torch.tensor(total, dtype=torch.float64, device=self._device)

    @torch.inference_mode()
    def score(
        self, windows: NDArray[np.int8], lengths: NDArray[np.integer], rows: NDArray[np.integer]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As `models.autoencoder.SequenceBank.score`."""
        check_windows(self.shape, windows, lengths, rows)
        n, (steps, hidden) = len(windows), (self.shape.steps, self.shape.hidden)
        x = torch.from_numpy(np.ascontiguousarray(windows)).to(self._device).float().clamp_(min=-CODE_MAX)
        outside = torch.from_numpy(np.arange(steps) < steps - lengths[:, None]).to(self._device)[:, :, None]
        x = x.masked_fill(outside, 0)
        adapted = np.flatnonzero(rows >= 0)
        # (n, S, F) -> (n, S, H)
        h = self._apply("encoder", x, adapted, rows).clamp_(min=0).masked_fill(outside, 0)
        # (n, S, H) -> (n, 1, S·H) -> (n, B) -> (n, H)
        z = self._apply("bottleneck", h.reshape(n, 1, steps * hidden), adapted, rows)[:, 0]
        last = slice((steps - 1) * hidden, None)
        last_h = self._activate(
            z @ self._arrays["expand.weight"][:, last] + self._arrays["expand.bias"][last], "expand"
        ).clamp_(min=0)
        # (n, H) -> (n, F)
        decoded = self._activate(last_h @ self._arrays["decoder.weight"] + self._arrays["decoder.bias"], "decoder")
        error = x[:, -1] - decoded
        part = error * error * self._feature_weight
        score = (part.double().sum(dim=1) / self._total_weight).float()
        return score.cpu().numpy(), (part / self._total_weight.float()).cpu().numpy()

    def _apply(self, name: str, x: torch.Tensor, adapted: NDArray[np.intp], rows: NDArray[np.integer]) -> torch.Tensor:
        y = x @ self._arrays[f"{name}.weight"] + self._arrays[f"{name}.bias"]
        if name in ADAPTED and len(adapted):
            at = torch.from_numpy(adapted).to(self._device)
            row = torch.from_numpy(np.asarray(rows, np.int64)).to(self._device)[at]
            # (a, s, fan_in) @ (a, fan_in, R) -> (a, s, R) -> (a, s, fan_out), one adapter a window
            low = torch.bmm(x[at], self._arrays[f"adapter.{name}.down"][row].float())
            low = self._activate(low, name)
            y[at] += torch.bmm(low, self._arrays[f"adapter.{name}.up"][row].float())
        return self._activate(y, name)

    def _activate(self, y: torch.Tensor, layer: str) -> torch.Tensor:
        y = y * self._step[layer]
        return y.round_().clamp_(-CODE_MAX, CODE_MAX)
