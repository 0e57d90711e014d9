"""`tidegate release`: what exists to be served, what is, and where it came from."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module

from stream.config import Settings

_ACTIONS = {
    "list": ("listing", "run_list"),
    "show": ("listing", "run_show"),
    "diff": ("listing", "run_diff"),
    "verify": ("listing", "run_verify"),
    "promote": ("serve", "run_promote"),
    "rollback": ("serve", "run_rollback"),
    "lineage": ("lineage", "run_lineage"),
}
"""Action -> the module here that does it, and its function; a rollback does not wait for the others' imports."""


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Do what `arguments.action` says.

    Raises
    ------
    TidegateError
        With the exit code that says what is wrong.
    """
    module, name = _ACTIONS[arguments.action]
    action: Callable[[Settings, argparse.Namespace], int] = getattr(
        import_module(f"stream.runtime.release.{module}"), name
    )
    return action(settings, arguments)
