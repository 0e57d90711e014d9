"""`tidegate config show`: every key with its value and where that came from."""

import argparse
import json
from collections.abc import Mapping
from typing import Any

from stream.config import Settings
from stream.runtime.settings import rows


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print the effective settings, secrets masked: as TOML with origins in comments, or as JSON."""
    table = rows(settings)
    if arguments.json:
        print(json.dumps({key: {"value": value, "origin": origin} for key, value, origin in table}, indent=2))
        return 0
    lines = [(f"{_quoted(key)} = {_toml(value)}", origin) for key, value, origin in table]
    width = max(len(text) for text, _ in lines)
    for text, origin in lines:
        print(f"{text:<{width}}  # {origin}")
    return 0


def _quoted(key: str) -> str:
    """`key` as TOML spells it: librdkafka's names hold dots themselves."""
    name = key.removeprefix("kafka.properties.")
    return key if name == key else f"kafka.properties.{json.dumps(name)}"


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{json.dumps(name)} = {_toml(entry)}" for name, entry in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    return json.dumps(value)
