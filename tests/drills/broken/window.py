"""The moment between two steps that belong together, held open until a drill's kill falls in it, however late."""

import os
import time
from pathlib import Path

OPEN = "DRILL_WINDOW"
"""Environment variable: a file that is there while the window is open; without it nobody kills, and none opens."""


def window() -> None:
    """Be in the window, and say so."""
    if OPEN not in os.environ:
        return
    said = Path(os.environ[OPEN])
    said.touch()
    while said.exists():
        time.sleep(0.02)
