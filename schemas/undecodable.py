"""What is raised for bytes that are no JSON, or not that of the structure that is asked for."""

from __future__ import annotations

import msgspec

UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Its own, and two that msgspec lets through: bytes in a string that are no UTF-8, nesting beyond Python's stack."""
