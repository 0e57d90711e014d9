"""What the fits of the sequence bank share: rounding that gradients pass through, the optimiser, masks.

The fits see the very arithmetic that scores: weights and activations are rounded in the forward pass, and gradients
pass through the rounding as if it were not there (the straight-through estimator of Bengio et al., 2013).

Legend: b windows, S events a window.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from models.bank_arrays import CODE_MAX


def snap(x: torch.Tensor, per_unit: float, limit: float | None = None) -> torch.Tensor:
    """The nearest of `per_unit` steps a unit, within ±127 steps or ±limit; the gradient is that of the clipping."""
    snapped: torch.Tensor = _StraightThrough.apply(x, per_unit, CODE_MAX / per_unit if limit is None else limit)
    return snapped


class _StraightThrough(torch.autograd.Function):
    """Rounding with the gradient of clipping, in two passes over memory each way."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, per_unit: float, bound: float) -> torch.Tensor:
        ctx.save_for_backward(x.abs() <= bound)
        return (x * per_unit).round_().clamp_(-bound * per_unit, bound * per_unit).div_(per_unit)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return grads[0] * inside, None, None


class Adam:
    """Adam (Kingma and Ba, 2015) as torch.optim has it, whose construction imports torch's compiler for 4 s."""

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        self._moments = [(p, torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
        self._steps = 0

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Go down the gradients of the last backward pass, and clear them."""
        self._steps += 1
        first, second = 1 - 0.9**self._steps, 1 - 0.999**self._steps
        for parameter, mean, square in self._moments:
            gradient = parameter.grad
            if gradient is None:
                continue
            mean.lerp_(gradient, 0.1)
            square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            parameter.addcdiv_(mean, (square / second).sqrt_().add_(1e-8), value=-rate / first)
            parameter.grad = None


def valid_steps(lengths: torch.Tensor, steps: int) -> torch.Tensor:
    """(b, S, 1), 1 where a window has an event."""
    return (torch.arange(steps, device=lengths.device)[None, :] >= steps - lengths[:, None]).float()[:, :, None]


@contextmanager
def threads_of_torch(count: int) -> Iterator[None]:
    """Let torch use `count` threads: with the seed they decide the bytes."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
