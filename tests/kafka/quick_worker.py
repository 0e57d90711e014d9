"""The trainer's worker with little effort and a gate that few sessions satisfy: tested is that jobs end once."""

from __future__ import annotations

import sys
from functools import partial

from stream.runtime.trainer import job, worker
from stream.training import gate
from stream.training.effort import Effort


def main() -> int:
    """Work as the real one does."""
    setattr(job, "EFFORT", Effort(epochs=1, steps_min=8, adapter_steps=8, passes=2, splices=0.1))  # noqa: B010
    setattr(gate, "decide", partial(gate.decide, attacks_min=1, benign_min=5))  # noqa: B010
    return worker.main()


if __name__ == "__main__":
    sys.exit(main())
