"""Where a batch's time goes: wall time spent inside named functions, what they call among them taken out."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


class Stages:
    """Times functions where their callers look them up, for as long as `watching` lasts."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._running: list[float] = []

    @contextmanager
    def watching(self, places: list[tuple[str, ModuleType | type, str]]) -> Iterator[None]:
        """Time each (stage, where, name)."""
        kept = [(where, name, getattr(where, name)) for _, where, name in places]
        for stage, where, name in places:
            setattr(where, name, self._timed(stage, getattr(where, name)))
        try:
            yield
        finally:
            for where, name, original in kept:
                setattr(where, name, original)

    def _timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            self._running.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                whole = time.perf_counter() - begun
                self.seconds[stage] += whole - self._running.pop()
                if self._running:
                    self._running[-1] += whole

        return run

    def table(self, events: int, total_s: float) -> str:
        """µs an event by stage, the rest last."""
        rows = sorted(self.seconds.items(), key=lambda row: -row[1])
        rows.append(("the rest", total_s - sum(self.seconds.values())))
        return "\n".join(f"| {stage} | {1e6 * seconds / events:.1f} |" for stage, seconds in rows)
