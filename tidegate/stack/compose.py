"""What docker-compose.yml starts, to be started as processes: `make stack` tries the same commands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

COMPOSE = Path(__file__).resolve().parents[2] / "docker-compose.yml"
SOURCE = "litellm.logs"
"""The topic that the file's gateway writes to."""
RELEASE = "/releases/sample"
LISTEN = "0.0.0.0:9464"
_RELEASE_VARIABLE = "${RELEASE:-/releases/sample}"


def services(path: Path = COMPOSE) -> dict[str, dict[str, Any]]:
    """The file's services, anchors and merges resolved."""
    given: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text())["services"]
    return given


def command(service: str, instead: Mapping[str, str], path: Path = COMPOSE) -> list[str]:
    """A service's command line, with what a process has `instead` of a container's names and paths.

    >>> command("topics", {SOURCE: "x.raw"})
    ['topics', 'create', '--source-topic', 'x.raw']
    """
    line = [str(word) for word in services(path)[service]["command"]]
    return [instead.get(word, word) for word in (RELEASE if word == _RELEASE_VARIABLE else word for word in line)]


def variables(service: str, instead: Mapping[str, str], path: Path = COMPOSE) -> dict[str, str]:
    """A service's environment, with what a process has `instead` of a container's paths.

    >>> variables("feedback", {"/feedback": "out/feedback"})["TIDEGATE_FEEDBACK__DIRECTORY"]
    'out/feedback'
    """
    given = services(path)[service]["environment"]
    return {name: instead.get(str(value), str(value)) for name, value in given.items()}
