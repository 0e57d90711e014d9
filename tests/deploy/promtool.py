"""Prometheus's own programs for tests: skipped where they are not, except in CI."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.prometheus.local import PrometheusUnavailable, tool


@contextmanager
def needed() -> Iterator[None]:
    """A block that uses Prometheus."""
    try:
        yield
    except PrometheusUnavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


def promtool(*arguments: str, cwd: Path | None = None) -> tuple[int, str]:
    """Exit code and output of promtool."""
    with needed():
        program = tool("promtool")
    done = subprocess.run([program, *arguments], cwd=cwd, capture_output=True, text=True, timeout=240, check=False)
    return done.returncode, done.stdout + done.stderr
