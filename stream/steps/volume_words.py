"""What a finding says of the volume signal."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from models.volume import GRID, PER_CALL, SIZED, SUB_FEATURES
from stream.state.volume import RECENT_CALLS
from stream.steps.volume import VolumeInput

NAMED_MAX = 3
_BESIDE = 0.5
"""Of the strongest sub-feature's strength, from which another is named beside it."""
_DAYS = ("a working day", "a weekend's day")


def explain(given: VolumeInput, event: int, features: NDArray[np.float32]) -> list[tuple[str, str]]:
    """Sub-features that made event `event` strange, the strongest first: name, and what was seen, what is normal.

    Parameters
    ----------
    features
        (J,) the event's.
    """
    order = np.argsort(-features, kind="stable")[:NAMED_MAX]
    least = max(_BESIDE * float(features.max()), 1e-9)
    return [(SUB_FEATURES[j], _SAID[SUB_FEATURES[j]](given, event)) for j in order.tolist() if features[j] >= least]


def _size(column: int, form: Callable[[float], str]) -> Callable[[VolumeInput, int], str]:
    def said(given: VolumeInput, event: int) -> str:
        seen, normal = given.observed.sizes[event, column], given.normal[event, SIZED.start + column]
        if column < PER_CALL and given.as_anyones[event, column]:
            # What is normal there is made of other tenants' calls, and theirs.
            return f"{form(_natural(float(seen)))}, much for any tenant's call; the session is unlike this tenant's"
        return f"{form(_natural(float(seen)))}, normally about {form(_natural(max(float(normal), 0.0)))}"

    return said


def _new(what: str) -> Callable[[VolumeInput, int], str]:
    name = f"new_{what.replace(' ', '_')}"

    def said(given: VolumeInput, event: int) -> str:
        owner = "tenant" if what == "key" else "key"
        return f"{what} new to the {owner}; {_rate(given, event, name)} of the tenant's sessions bring one"

    return said


def _hour(given: VolumeInput, event: int) -> str:
    day, hour = divmod(int(given.observed.hour[event]), 24)
    return f"at {hour:02d}:00 UTC of {_DAYS[day]}, when the tenant hardly calls"


def _growth(given: VolumeInput, event: int) -> str:
    above = given.observed.growth[event] / GRID
    return f"arguments of one tool keep growing, {above:.1f} standard deviations in sum above its own, normally 0"


def _errors(given: VolumeInput, event: int) -> str:
    return f"calls of the session fail in a row, normally {_rate(given, event, 'errors')} of calls do"


def _key_errors(given: VolumeInput, event: int) -> str:
    failed, calls = given.observed.key_errors[event].tolist()
    return (
        f"{failed} of {calls} calls of the key failed within ten minutes, normally {_rate(given, event, 'key_errors')}"
    )


def _repeats(given: VolumeInput, event: int) -> str:
    run = int(given.observed.repeats[event])
    rate = _rate(given, event, "repeats")
    return f"{run} tool calls in a row equal one of the {RECENT_CALLS} before, which {rate} of calls normally begin"


def _origin(given: VolumeInput, event: int) -> str:
    new = given.observed.new[event].tolist()
    what = [name for name, is_new in zip(("key", "user agent", "network"), new, strict=True) if is_new]
    return f"{', '.join(f'new {name}' for name in what) or 'nothing new'}, {_hour(given, event)}"


def _rate(given: VolumeInput, event: int, name: str) -> str:
    return f"{given.normal[event, SUB_FEATURES.index(name)]:.2%}"


def _natural(size: float) -> float:
    return float(np.expm1(size / GRID))


_SAID: dict[str, Callable[[VolumeInput, int], str]] = {
    "hour": _hour,
    "prompt_tokens": _size(0, lambda x: f"{x:.0f} prompt tokens"),
    "completion_tokens": _size(1, lambda x: f"{x:.0f} completion tokens"),
    "cost": _size(2, lambda x: f"{x / 1e6:.4g} USD"),
    "duration": _size(3, lambda x: f"{x / 1000:.3g} s"),
    "key_calls": _size(4, lambda x: f"{x:.0f} calls of the key in ten minutes"),
    "key_tokens": _size(5, lambda x: f"{x:.0f} tokens of the key in ten minutes"),
    "argument_growth": _growth,
    "errors": _errors,
    "key_errors": _key_errors,
    "repeats": _repeats,
    "new_key": _new("key"),
    "new_user_agent": _new("user agent"),
    "new_network": _new("network"),
    "origin": _origin,
}
