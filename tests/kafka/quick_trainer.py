"""`tidegate trainer` with the quick worker: `python -m tests.kafka.quick_trainer trainer …`."""

from __future__ import annotations

import sys
from functools import partial

from stream.runtime.trainer import command
from stream.runtime.trainer.service import TrainerService
from tidegate import cli

if __name__ == "__main__":
    setattr(command, "TrainerService", partial(TrainerService, worker="tests.kafka.quick_worker"))  # noqa: B010
    sys.exit(cli.main())
