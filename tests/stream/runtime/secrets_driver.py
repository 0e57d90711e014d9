"""Runs commands one after another in one process, with everything logged that any library has to say.

Reads a JSON array of argument lists from stdin, and tells each exit code.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import TextIO

from stream.runtime import logs
from tidegate.cli import main

if __name__ == "__main__":
    quiet = logs.configure

    def at_debug(log_format: str, stream: TextIO | None = None) -> None:
        quiet(log_format, stream)
        logging.getLogger().setLevel(logging.DEBUG)
        # Nothing is held back for being said again.
        logging.getLogger(logs.LIBRDKAFKA).filters.clear()

    logs.configure = at_debug
    for arguments in json.load(sys.stdin):
        print(f"EXIT {main(arguments)} {' '.join(arguments)}", flush=True)
