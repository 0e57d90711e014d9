"""The formats that are known, and which of them a record has."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from schemas.gateways.call import GatewayFormat, Read, Skipped, Unreadable
from schemas.gateways.kong import Kong
from schemas.gateways.litellm import LiteLLM
from schemas.gateways.native import Native
from schemas.gateways.otel_genai import OTelGenAI
from schemas.gateways.repair import repair
from schemas.undecodable import UNDECODABLE

FORMATS: tuple[type[LiteLLM | OTelGenAI | Kong | Native], ...] = (LiteLLM, OTelGenAI, Kong, Native)
"""In the order in which they are tried; a new gateway is a class here."""

NAMES = ("auto", *(known.name for known in FORMATS))


class Auto:
    """Format `auto`: each record is read as what it is."""

    name = "auto"

    def __init__(self) -> None:
        self._formats: tuple[GatewayFormat, ...] = tuple(known() for known in FORMATS)

    def is_binary(self, value: bytes) -> bool:
        """Whether any format takes `value`, which is no JSON."""
        return any(known.is_binary(value) for known in self._formats)

    def sniff(self, value: bytes) -> bool:
        """Whether any format may be meant."""
        return any(known.sniff(value) for known in self._formats)

    def decode(self, value: bytes) -> Sequence[Read]:
        """What is in `value`; raises as `GatewayFormat.decode`.

        A format that would skip all of it is believed only when no other one reads it.
        """
        for known in self._formats:
            if known.is_binary(value):
                return known.decode(value)  # where nothing is escaped, content may spell any mark
        skipped: Sequence[Read] = ()
        for known in self._formats:
            if known.sniff(value):
                try:
                    read = known.decode(value)
                except Unreadable as error:
                    if error.reason != "unknown_format":
                        raise
                    continue
                if not all(isinstance(part, Skipped) for part in read):
                    return read
                skipped = skipped or read
        if skipped:
            return skipped
        try:
            msgspec.json.decode(value)
        except UNDECODABLE:
            repair(value)
        known_names = ", ".join(known.name for known in self._formats)
        raise Unreadable("unknown_format", f"the record is of no known format ({known_names}): no field that marks one")


def format_of(name: str) -> GatewayFormat:
    """The format called `name`, one of `NAMES`.

    Raises
    ------
    ValueError
        For another name.
    """
    if name == Auto.name:
        return Auto()
    for known in FORMATS:
        if known.name == name:
            return known()
    raise ValueError(f"format must be one of {', '.join(NAMES)}; got {name!r}")
