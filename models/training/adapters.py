"""Fine-tune the adapters of all tenants of a bank at once, its backbone frozen.

The stacked adapters are trained by batched products, every step on equally many windows of each tenant, in the
arithmetic that scores (`models.training.quantised`). No tenant is a turn of a loop, and none sees another's windows.

Legend: n distinct windows, T tenants, b windows of each of them, S events a window, F features, H encoded features,
B bottleneck, R rank.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import cos, pi

import numpy as np
import torch
from numpy.typing import NDArray

from models.bank_arrays import ADAPTED, CODE_MAX, GRID, LAYERS, check_bank
from models.training.quantised import Adam, snap, threads_of_torch, valid_steps


@dataclass(frozen=True, slots=True)
class FitAdapters:
    """How to fit."""

    rank: int = 4
    steps: int = 240
    batch: int = 16
    """Windows of each tenant in a step."""
    learning_rate: float = 2e-2
    prior_windows: float = 1.0
    """An adapter's squared size weighs as much as the error of so many of its tenant's windows."""
    denoising: float = 0.2
    """Share of the last event's features that are blanked, as when the backbone was fitted."""
    checks: int = 8
    """Looks at what is held out; each tenant keeps its adapter as it was at the best of them."""
    check_windows: int = 64
    """Most held-out windows of a tenant that are looked at."""
    held_out_min: int = 8
    """Distinct held-out windows without which a tenant keeps the zero adapter."""
    gain_min: float = 0.03
    """Share of the held-out error that an adapter must take away, or its tenant keeps the zero adapter."""
    gain_few: float = 32.0
    """A tenant of k distinct held-out windows has to gain 1 + this / k times as much: few may say so by chance."""
    tenants_at_once: int = 256
    """Bounds memory. No result depends on it."""
    device: str = "auto"
    """`auto` is CUDA where there is a device. There products take bfloat16, which holds the grid's 7-bit numbers."""
    threads: int = 1
    """Of torch on the CPU."""


def fit_adapters(
    windows: NDArray[np.int8],
    lengths: NDArray[np.integer],
    tenant: NDArray[np.integer],
    backbone: Mapping[str, NDArray[np.generic]],
    *,
    group: NDArray[np.integer],
    tenants: int,
    seed: int,
    how: FitAdapters = FitAdapters(),
) -> dict[str, NDArray[np.generic]]:
    """Arrays ``adapter.<layer>.down`` and ``.up`` (`models.bank_arrays.check_bank`) that fit each tenant's windows.

    A tenant's last group is held out from its fit. It judges the adapter several times on the way, and a tenant whose
    adapter does not lower that error enough, or that has too little to hold out, keeps the zero adapter: it is scored
    as the population is. As in the backbone's fit, a window that occurs c times weighs √c and residuals beyond one unit
    pull linearly. The same windows in whatever order and the same seed give the same bytes on one machine.

    Parameters
    ----------
    windows
        (n, S, F), features in steps of 1/16, the last event last.
    lengths
        (n,), 1 to S.
    tenant
        (n,), 0 to `tenants` - 1.
    backbone
        A bank's arrays; its adapters, if it has any, are not looked at.
    group
        (n,), from 0: windows that must not stand on both sides, such as those of one session or fold.
    tenants
        T, as many as the result has rows.
    seed
        Of initial weights, order and blanking.

    Raises
    ------
    ValueError
        Arrays that do not belong together.
    """
    frozen = {name: array for name, array in backbone.items() if not name.startswith("adapter.")}
    shape = check_bank(frozen)
    _check(windows, lengths, tenant, group, (shape.steps, shape.features), tenants)
    arrays: dict[str, NDArray[np.generic]] = {}
    for layer in ADAPTED:
        fan_in, fan_out = frozen[f"{layer}.weight"].shape
        arrays[f"adapter.{layer}.down"] = np.zeros((tenants, fan_in, how.rank), np.int8)
        arrays[f"adapter.{layer}.up"] = np.zeros((tenants, how.rank, fan_out), np.int8)
    given = _distinct(windows, lengths, tenant, group)
    able = np.flatnonzero(np.bincount(given.tenant[given.held_out], minlength=tenants) >= how.held_out_min)
    device = _device(how.device)
    with threads_of_torch(how.threads):
        for low in range(0, len(able), how.tenants_at_once):
            mine = able[low : low + how.tenants_at_once]
            for name, codes in _fit(given.of(mine), len(mine), frozen, seed, how, device).items():
                arrays[name][mine] = codes
    check_bank(frozen | arrays)
    return arrays


# -- what is fitted on -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Windows:
    """Distinct windows (n), by tenant."""

    x: NDArray[np.int8]
    """(n, S, F)"""
    lengths: NDArray[np.int64]
    tenant: NDArray[np.int64]
    held_out: NDArray[np.bool_]
    weight: NDArray[np.float32]
    """(n,) the root of how often each occurs in its group."""

    def of(self, tenants: NDArray[np.intp]) -> "_Windows":
        """Those of `tenants` (sorted), whose numbers become their places in it."""
        at = np.flatnonzero(np.isin(self.tenant, tenants))
        local = np.searchsorted(tenants, self.tenant[at])
        return _Windows(self.x[at], self.lengths[at], local, self.held_out[at], self.weight[at])


def _distinct(
    windows: NDArray[np.int8], lengths: NDArray[np.integer], tenant: NDArray[np.integer], group: NDArray[np.integer]
) -> _Windows:
    n, steps, features = windows.shape
    x = np.maximum(windows, -CODE_MAX)
    x[np.arange(steps) < steps - lengths[:, None]] = 0
    # Big-endian numbers, so that bytes sort as they do.
    owner = np.stack([tenant, group], axis=1).astype(">u4").view(np.uint8).reshape(n, 8)
    flat = np.concatenate(
        [owner, lengths.astype(np.uint8)[:, None], x.view(np.uint8).reshape(n, steps * features)], axis=1
    )
    whole = np.ascontiguousarray(flat).view(np.dtype((np.void, flat.shape[1])))[:, 0]
    _, first, counts = np.unique(whole, return_index=True, return_counts=True)
    owners = tenant[first].astype(np.int64)
    return _Windows(
        x[first],
        lengths[first].astype(np.int64),
        owners,
        _held_out(owners, group[first].astype(np.int64)),
        np.sqrt(counts.astype(np.float32)),
    )


def _held_out(tenant: NDArray[np.int64], group: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n,), whether a window is of its tenant's last group, and that is not its only one."""
    size = int(tenant.max(initial=-1)) + 1
    last, first = np.full(size, -1, np.int64), np.full(size, np.iinfo(np.int64).max)
    np.maximum.at(last, tenant, group)
    np.minimum.at(first, tenant, group)
    held: NDArray[np.bool_] = (group == last[tenant]) & (first[tenant] < last[tenant])
    return held


# -- the fit -----------------------------------------------------------------------------------------------------------


class _Adapters(torch.nn.Module):
    """The bank's layers as far as they lead to the last event, with latent adapters (T, fan_in, R), (T, R, fan_out)."""

    def __init__(
        self,
        backbone: Mapping[str, NDArray[np.generic]],
        tenants: int,
        rank: int,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        super().__init__()
        # bfloat16 rounds a product's sums to 8 bits: by far fewer steps than another batch, and never when checked.
        self.bf16 = False
        self._per_unit = dict(zip(LAYERS, (2.0 ** backbone["shifts"].astype(np.float64)).tolist(), strict=True))
        self._weight, self._bias = {}, {}
        for layer in LAYERS:
            weight = torch.from_numpy(backbone[f"{layer}.weight"].astype(np.float32)) / self._per_unit[layer]
            bias = torch.from_numpy(backbone[f"{layer}.bias"].astype(np.float32)) / (GRID * self._per_unit[layer])
            self._weight[layer], self._bias[layer] = weight.to(device), bias.to(device)
        weight = torch.from_numpy(backbone["feature_weight"].astype(np.float32)).to(device)
        self.feature_weight = weight / weight.sum()
        hidden = self._weight["encoder"].shape[1]
        self._weight["expand"] = self._weight["expand"][:, -hidden:].contiguous()
        self._bias["expand"] = self._bias["expand"][-hidden:]
        for layer in ADAPTED:
            fan_in, fan_out = backbone[f"{layer}.weight"].shape
            # All tenants start from one draw, and up from zero: where they end is their windows' doing.
            start = (torch.rand((fan_in, rank), generator=generator) * 2 - 1) * (3 / fan_in) ** 0.5
            down = start.expand(tenants, -1, -1).contiguous().to(device)
            self.register_parameter(f"{layer}_down", torch.nn.Parameter(down))
            self.register_parameter(
                f"{layer}_up", torch.nn.Parameter(torch.zeros((tenants, rank, fan_out), device=device))
            )

    def forward(self, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """The last events' reconstructions (T, b, F) of `x` (T, b, S, F) in units; `valid` (T, b, S, 1)."""
        tenants, b, steps, features = x.shape
        # (T, b, S, F) -> (T, b·S, H) -> (T, b, S·H) -> (T, b, B) -> (T, b, H) -> (T, b, F)
        h = self._layer("encoder", (x * valid).reshape(tenants, b * steps, features)).relu()
        h = (h.view(tenants, b, steps, -1) * valid).reshape(tenants, b, -1)
        return self._layer("decoder", self._layer("expand", self._layer("bottleneck", h)).relu())

    def squared_size(self) -> torch.Tensor:
        """Of each tenant (T,)."""
        return torch.stack([self.get_parameter(f"{layer}_up").square().sum((1, 2)) for layer in ADAPTED]).sum(0)

    def codes(self, parameter: str, values: torch.Tensor) -> NDArray[np.int8]:
        """Latent `values` on their layer's grid."""
        per_unit = self._per_unit[parameter.partition("_")[0]]
        codes: NDArray[np.int8] = (snap(values, per_unit) * per_unit).cpu().numpy().astype(np.int8)
        return codes

    def _layer(self, name: str, x: torch.Tensor) -> torch.Tensor:
        y = self._product(x, self._weight[name])
        if name in ADAPTED:
            per_unit = self._per_unit[name]
            low = snap(self._product(x, snap(self.get_parameter(f"{name}_down"), per_unit)), GRID)
            y = y + self._product(low, snap(self.get_parameter(f"{name}_up"), per_unit))
        return snap(y + self._bias[name], GRID)

    def _product(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        if self.bf16:
            return (x.bfloat16() @ weight.bfloat16()).float()
        return x @ weight


class _Batches:
    """Windows of every tenant in blocks (T, b), from where the fit computes."""

    def __init__(self, given: _Windows, tenants: int, device: torch.device) -> None:
        self._device = device
        self._x, self._lengths = _to(given.x, device), _to(given.lengths, device)
        bounds = np.searchsorted(given.tenant, np.arange(tenants + 1))
        drawn = np.where(given.held_out, 0, given.weight).astype(np.float64)
        ends = np.r_[0.0, np.cumsum(drawn)]
        self.drawn = torch.from_numpy(np.bincount(given.tenant, ~given.held_out, tenants)).to(device)
        """(T,) windows to draw from."""
        self.held_out = torch.from_numpy(np.bincount(given.tenant, given.held_out, tenants)).to(device)
        """(T,) windows that are not drawn."""
        self._ends = _to(ends[1:], device)
        self._from, self._to = (_to(part[:, None], device) for part in (ends[bounds[:-1]], ends[bounds[1:]]))
        self._first, self._last = (_to(part[:, None], device) for part in (bounds[:-1], bounds[1:] - 1))

    def draw(self, size: int, generator: torch.Generator) -> torch.Tensor:
        """Places (T, size) of windows by their weights, what is held out left alone."""
        u = torch.rand(size, generator=generator).double().to(self._device)
        at = torch.searchsorted(self._ends, self._from + u * (self._to - self._from), right=True)
        return torch.minimum(torch.maximum(at, self._first), self._last)

    def windows(self, at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Windows (T, b, S, F) in units, and (T, b, S, 1), 1 where they have an event."""
        x = self._x[at].float() / GRID
        return x, valid_steps(self._lengths[at.reshape(-1)], x.shape[2]).view(*x.shape[:3], 1)


def _fit(
    given: _Windows,
    tenants: int,
    backbone: Mapping[str, NDArray[np.generic]],
    seed: int,
    how: FitAdapters,
    device: torch.device,
) -> dict[str, NDArray[np.int8]]:
    """Codes of `tenants` adapters."""
    generator = torch.Generator().manual_seed(seed)
    network = _Adapters(backbone, tenants, how.rank, generator, device)
    batches = _Batches(given, tenants, device)
    features = given.x.shape[2]
    at, share = (part.to(device) for part in _held_out_block(given, tenants, how.check_windows))
    held_out_blank = _blank(how.check_windows, features, how.denoising, generator, device)

    @torch.no_grad()
    def held_out() -> torch.Tensor:
        """Errors (T,), weighted as scores are, with and without blanks: what only learned to copy gains half."""
        network.bf16 = False
        x, valid = batches.windows(at)
        error = _errors(network, x, valid, held_out_blank) + _errors(network, x, valid, None)
        return ((error @ network.feature_weight) * share).sum(1)

    optimiser = Adam(list(network.parameters()))
    pull = how.prior_windows / batches.drawn.clamp(min=1).float()
    population = best = held_out()
    kept = {name: torch.zeros_like(values) for name, values in network.named_parameters()}
    every = max(how.steps // how.checks, 1)
    for step in range(how.steps):
        network.bf16 = device.type == "cuda"
        x, valid = batches.windows(batches.draw(how.batch, generator))
        blank = _blank(how.batch, features, how.denoising, generator, device)
        # A sum over tenants: the gradient of each is its own, and so is Adam's step.
        loss = (_errors(network, x, valid, blank).mean((1, 2)) + pull * network.squared_size()).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step(how.learning_rate * 0.5 * (1 + cos(pi * step / how.steps)))
        if (step + 1) % every == 0:
            error = held_out()
            better = error < best
            best = torch.where(better, error, best)
            for name, values in network.named_parameters():
                kept[name] = torch.where(better[:, None, None], values.detach(), kept[name])
    least = how.gain_min * (1 + how.gain_few / batches.held_out)
    worth = (best <= (1 - least) * population)[:, None, None]
    return {
        "adapter." + name.replace("_", "."): network.codes(name, torch.where(worth, values, 0))
        for name, values in kept.items()
    }


def _errors(network: _Adapters, x: torch.Tensor, valid: torch.Tensor, blank: torch.Tensor | None) -> torch.Tensor:
    """Huber losses (T, b, F) of the last events of `x` (T, b, S, F), of which `blank` (b, F) is not shown."""
    target = x[:, :, -1]
    if blank is not None:
        x = x.clone()
        x[:, :, -1].masked_fill_(blank, 0)
    return torch.nn.functional.huber_loss(network(x, valid), target, reduction="none")


def _held_out_block(given: _Windows, tenants: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Places (T, width) of held-out windows, evenly spread where there are more, and their shares (T, width)."""
    at = np.flatnonzero(given.held_out)
    count = np.bincount(given.tenant[at], minlength=tenants)
    turn = np.arange(width)
    # A tenant of fewer windows has padding without a share at its end.
    pick = np.where(count[:, None] <= width, turn, turn * count[:, None] // width)
    inside = pick < count[:, None]
    start = (np.cumsum(count) - count)[:, None]
    place = at[np.where(inside, start + pick, start)]
    share = np.where(inside, given.weight[place], 0)
    return torch.from_numpy(place), torch.from_numpy((share / share.sum(axis=1, keepdims=True)).astype(np.float32))


def _blank(size: int, features: int, share: float, generator: torch.Generator, device: torch.device) -> torch.Tensor:
    return (torch.rand((size, features), generator=generator) < share).to(device)


def _to(array: NDArray[np.generic], device: torch.device) -> torch.Tensor:
    """`array` on `device`; copies to a GPU start from pinned memory and are not waited for."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _check(
    windows: NDArray[np.int8],
    lengths: NDArray[np.integer],
    tenant: NDArray[np.integer],
    group: NDArray[np.integer],
    window: tuple[int, int],
    tenants: int,
) -> None:
    n = len(windows)
    if windows.dtype != np.int8 or windows.shape != (n, *window):
        raise ValueError(f"windows must be int8 (n, {window[0]}, {window[1]}); got {windows.dtype} {windows.shape}.")
    if not lengths.shape == tenant.shape == group.shape == (n,):
        raise ValueError(
            f"lengths, tenant and group must be ({n},) as there are windows; got {lengths.shape}, {tenant.shape} and "
            f"{group.shape}."
        )
    for name, values, low, high in (
        ("lengths", lengths, 1, window[0]),
        ("tenant", tenant, 0, tenants - 1),
        ("group", group, 0, 2**32 - 1),
    ):
        if n and not low <= values.min() <= values.max() <= high:
            raise ValueError(f"{name} must be {low} to {high}; got {values.min()} to {values.max()}.")
