"""Figures in words, for sentences and tables."""

from __future__ import annotations

import math

from evaluation.report.model import Figure

NONE = "–"


def sentence(reason: str) -> str:
    """A reason as a sentence.

    >>> sentence("there are no attacks"), sentence("MiniLM is not installed.")
    ('There are no attacks.', 'MiniLM is not installed.')
    """
    return f"{reason[:1].upper()}{reason[1:]}{'' if reason.endswith('.') else '.'}"


def percent(value: float | None) -> str:
    """A share in per cent: one decimal, or two of less than one.

    >>> percent(0.01234), percent(0.957), percent(0.000432), percent(None)
    ('1.2 %', '95.7 %', '0.04 %', '–')
    """
    return NONE if value is None else f"{_hundred(value)} %"


def percent_of(figure: Figure | None) -> str:
    """A share with its interval.

    >>> percent_of(Figure(value=0.5, low=0.4123, high=0.6, n=10, clusters=5))
    '50 % (41.2 to 60 %)'
    """
    if figure is None or figure.value is None:
        return NONE
    if figure.low is None or figure.high is None:
        return percent(figure.value)
    return f"{percent(figure.value)} ({_hundred(figure.low)} to {percent(figure.high)})"


def number(value: float | None, digits: int = 3) -> str:
    """A number that is no share.

    >>> number(0.98765), number(1234.5), number(1.5), number(None)
    ('0.988', '1,234', '1.5', '–')
    """
    if value is None:
        return NONE
    return f"{value:,.0f}" if abs(value) >= 1000 else _short(value, digits)


def number_of(figure: Figure | None) -> str:
    """A number with its interval.

    >>> number_of(Figure(value=0.93, low=0.9, high=0.951, n=10, clusters=5))
    '0.93 (0.9 to 0.951)'
    """
    if figure is None or figure.value is None:
        return NONE
    if figure.low is None or figure.high is None:
        return number(figure.value)
    return f"{number(figure.value)} ({number(figure.low)} to {number(figure.high)})"


def points_of(figure: Figure | None) -> str:
    """A difference of shares, in percentage points.

    >>> points_of(Figure(value=-0.05, low=-0.1, high=0.004, n=10, clusters=5))
    '−5 (−10 to +0.4)'
    """
    if figure is None or figure.value is None:
        return NONE
    if figure.low is None or figure.high is None:
        return _signed(100 * figure.value)
    return f"{_signed(100 * figure.value)} ({_signed(100 * figure.low)} to {_signed(100 * figure.high)})"


def parts(sentence: str) -> list[tuple[str, bool]]:
    """A sentence in pieces, and which of them are names within backticks.

    >>> parts("`paired`: none")
    [('paired', True), (': none', False)]
    """
    return [(text, bool(at % 2)) for at, text in enumerate(sentence.split("`")) if text]


def listed(names: list[str], most: int = 4) -> str:
    """Names in a sentence.

    >>> listed(["a", "b", "c"]), listed(["a", "b", "c"], 2)
    ('a, b and c', 'a, b and 1 more')
    """
    shown, left = names[:most], len(names) - most
    if left > 0:
        return f"{', '.join(shown)} and {left} more"
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1]))) if shown else "none"


def _hundred(value: float) -> str:
    return _trimmed(f"{100 * value:.{2 if abs(value) < 0.01 else 1}f}")


def _short(value: float, digits: int = 3) -> str:
    """So many digits, and no more decimals than they leave.

    >>> _short(99.96), _short(3.14159), _short(0.0), _short(0.00123)
    ('100', '3.14', '0', '0.00123')
    """
    if abs(value) < 1e-6:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return _trimmed(f"{value:.{decimals}f}")


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _signed(value: float) -> str:
    text = _trimmed(f"{abs(value):.1f}")
    return text if text == "0" else f"{'−' if value < 0 else '+'}{text}"
