"""Rules that configuration keys keep; a broken one says where, what was required, what came, and what to do."""

import math
from collections.abc import Mapping

from stream.errors import UsageError

_OWN_PROPERTIES = frozenset(
    {
        "bootstrap.servers",
        "group.id",
        "group.instance.id",
        "group.protocol",
        "transactional.id",
        "transaction.timeout.ms",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.idempotence",
        "enable.partition.eof",
        "isolation.level",
        "acks",
        "request.required.acks",
        "auto.offset.reset",
        "partitioner",
        "session.timeout.ms",
    }
)


def refused(key: str, rule: str, value: object) -> UsageError:
    """The error of a `value` that breaks `key`'s rule."""
    section, _, name = key.partition(".")
    variable = f"TIDEGATE_{section}__{name.partition('.')[0]}".upper()
    return UsageError(f"{key} must be {rule}; got {value!r}. Set it in tidegate.toml or {variable}.")


def integer(key: str, value: object, at_least: int, at_most: int | None = None) -> None:
    """`value` must be a whole number between the bounds, both included."""
    rule = f"a whole number of at least {at_least}" + ("" if at_most is None else f" and at most {at_most}")
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise refused(key, rule, value)
    if at_most is not None and value > at_most:
        raise refused(key, rule, value)


def number(
    key: str, value: object, at_least: float = -math.inf, above: float = -math.inf, at_most: float = math.inf
) -> None:
    """`value` must be a finite float between the bounds."""
    bounds = [
        f"above {above:g}" if above > -math.inf else "",
        f"at least {at_least:g}" if at_least > -math.inf else "",
        f"at most {at_most:g}" if at_most < math.inf else "",
    ]
    rule = "a number " + " and ".join(bound for bound in bounds if bound)
    if not isinstance(value, float) or not math.isfinite(value) or not above < value <= at_most or value < at_least:
        raise refused(key, rule, value)


def text(key: str, value: object, *, empty: bool = False) -> None:
    """`value` must be text, and hold something unless `empty`."""
    if not isinstance(value, str) or not (value or empty):
        raise refused(key, "text" if empty else "text that is not empty", value)


def one_of(key: str, value: object, allowed: tuple[str, ...]) -> None:
    """`value` must be one of `allowed`."""
    if value not in allowed:
        raise refused(key, f"one of {', '.join(allowed)}", value)


def topic_characters(key: str, value: object) -> None:
    """`value` must be fit for the name of a Kafka topic."""
    text(key, value, empty=True)
    if isinstance(value, str) and not all(c.isascii() and (c.isalnum() or c in "._-") for c in value):
        raise refused(key, "letters, digits, '.', '_' and '-' only, as Kafka allows in names", value)


class _Unsaid(str):
    """Of a value its kind only."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def mapping(key: str, value: object, kind: type[object]) -> None:
    """`value` must map names to values of `kind`, `str` or `int`."""
    if kind is str and not isinstance(value, Mapping):
        # A table of passwords with one quote too few is a text, and must not be read aloud.
        value = _Unsaid("a text that is none" if isinstance(value, str) else f"a {type(value).__name__}")
    if not isinstance(value, Mapping) or not all(
        isinstance(k, str) and isinstance(v, kind) and not isinstance(v, bool) for k, v in value.items()
    ):
        raise refused(key, f"a table of {'text' if kind is str else 'whole numbers'} by name", value)


def left_to_tidegate(key: str, properties: Mapping[str, str]) -> None:
    """None of librdkafka's `properties` may be one that delivery rests on."""
    if own := sorted(_OWN_PROPERTIES & properties.keys()):
        raise UsageError(
            f"{key} must leave {own[0]} to Tidegate, whose promises of delivery rest on it. "
            "Remove it; addresses and timeouts have keys of their own in [kafka]."
        )
