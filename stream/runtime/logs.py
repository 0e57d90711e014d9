"""Logging to stderr, as text or as JSON; stdout belongs to READY lines and results."""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

LIBRDKAFKA = "stream.librdkafka"
"""Logger of what the Kafka clients say of themselves."""
REPEAT_SECONDS = 30.0
_NUMBER = re.compile(r"\d+")


class Repeats(logging.Filter):
    """Lets a message through once in `REPEAT_SECONDS`, whatever its numbers: an absent broker is tried all the time."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether nothing like `record` was let through lately."""
        kind = _NUMBER.sub("#", record.getMessage())
        if record.created - self._seen.get(kind, -REPEAT_SECONDS) < REPEAT_SECONDS:
            return False
        if len(self._seen) >= 1_000:
            self._seen.clear()
        self._seen[kind] = record.created
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time, level, logger, message`, and `exception` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """`record` as JSON."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def configure(log_format: str, stream: TextIO | None = None) -> None:
    """Send this process's log to `stream`, stderr by default.

    Parameters
    ----------
    log_format
        `json` or `text`.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    if log_format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logger = logging.getLogger(LIBRDKAFKA)
    if not any(isinstance(one, Repeats) for one in logger.filters):
        logger.addFilter(Repeats())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
