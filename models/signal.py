"""What every signal is."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

SCALES = ("tenant", "population", "raised")
"""A signal on the tenant's scale is judged against that tenant's past, one on the population's against everyone's; one
that is raised against everyone's too, but for tenants whose past lies higher: what theirs say every day is no surprise.
"""


class Signal(Protocol):
    """A number per event or segment, higher is stranger, with what explains it.

    One call takes many of them, of any mixture of tenants; there is no method for one. What a tenant has taught stands
    outside, in rows of arrays that `score` is given together with an index per input, so that one store keeps, logs and
    restores the state of all signals.

    Promises, held by `tests/contracts/test_signals.py`: scoring changes nothing; a score does not depend on what else
    is in the batch, to the bit; anomalies outrank normal points.
    """

    @property
    def name(self) -> str:
        """In scores and findings."""

    @property
    def scale(self) -> str:
        """One of `SCALES`."""

    def score(self, *args: Any, **kwargs: Any) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Scores (n,), and per input what explains it: errors by feature, the nearest slot."""


class LearningSignal(Signal, Protocol):
    """A signal that learns in the stream. Its state has a fixed size a tenant."""

    def empty(self, rows: int) -> Any:
        """The state of `rows` tenants that have taught nothing."""

    def learn(self, *args: Any, **kwargs: Any) -> None:
        """Take a batch of lessons into the state rows given, in place."""
