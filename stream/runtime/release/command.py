"""`tidegate release`: what exists to be served, what is, and where it came from."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from stream.config import Settings
from stream.runtime.release import lineage, listing, serve

_ACTIONS: dict[str, Callable[[Settings, argparse.Namespace], int]] = {
    "list": listing.run_list,
    "show": listing.run_show,
    "diff": listing.run_diff,
    "verify": listing.run_verify,
    "promote": serve.run_promote,
    "rollback": serve.run_rollback,
    "lineage": lineage.run_lineage,
}


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Do what `arguments.action` says.

    Raises
    ------
    TidegateError
        With the exit code that says what is wrong.
    """
    return _ACTIONS[arguments.action](settings, arguments)
