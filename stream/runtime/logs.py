"""Logging to stderr, as text or as JSON; stdout belongs to READY lines and results."""

import json
import logging
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, TextIO

LIBRDKAFKA = "stream.librdkafka"
"""Logger of what the Kafka clients say of themselves."""
REPEAT_SECONDS = 30.0
MASK = "********"
_SHORTEST = 4
"""Characters of the shortest secret that is looked for: a shorter one would blank out ordinary words."""
_HIDDEN: set[str] = set()
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
            "message": masked(record.getMessage()),
        }
        if record.exc_info:
            entry["exception"] = masked(self.formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """For people: time, level, logger, message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """`record` as text."""
        return masked(super().format(record))


def hide(secrets: Iterable[str]) -> None:
    """Let none of these ever be seen in the log: nobody here writes them, but a library, or a broker's answer, may."""
    _HIDDEN.update(secret for secret in secrets if len(secret) >= _SHORTEST)


def masked(text: str) -> str:
    """`text` with what is hidden blanked out."""
    for secret in _HIDDEN:
        text = text.replace(secret, MASK)
    return text


def configure(log_format: str, stream: TextIO | None = None) -> None:
    """Send this process's log to `stream`, stderr by default.

    Parameters
    ----------
    log_format
        `json` or `text`.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logger = logging.getLogger(LIBRDKAFKA)
    if not any(isinstance(one, Repeats) for one in logger.filters):
        logger.addFilter(Repeats())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def listen_to_clients() -> None:
    """Let through what the Kafka clients say at debug level, for whoever set librdkafka's `debug`."""
    logging.getLogger(LIBRDKAFKA).setLevel(logging.DEBUG)
