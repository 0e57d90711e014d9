"""The gate's decision on one page, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import orjson
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from schemas.safe_text import safe_text
from stream.runtime.report.page import put
from stream.runtime.trainer.gate_report.figures import draw
from stream.training.gate import Check, GateReport, Slice
from stream.training.proportions import Interval

PAGE, DATA = "gate.html", "gate.json"
SLICES_LISTED = 200
_NAME_CHARS = 120
_TEXT_CHARS = 1_000
_RULES = {
    "labels": "Labels are believed",
    "evidence": "There is enough to judge by",
    "recall": "Labelled attacks are still found",
    "recall_held_out": "So are those held out from training",
    "recall_earlier": "So are those that the champion knew",
    "false_positives": "Benign traffic is left alone",
    "slices": "No slice pays for the others",
}


def write_gate_report(report: GateReport, out: Path) -> list[str]:
    """Write `gate.html` and `gate.json` into folder `out`, which is made; their names.

    The page loads nothing and runs nothing: names in it may be an attacker's, are escaped, and have no script to reach.
    The same report gives the same bytes.

    Raises
    ------
    OSError
        When the folder cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    options = orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    put(out / DATA, orjson.dumps(msgspec.to_builtins(report), option=options))
    put(out / PAGE, page(report).encode())
    return [PAGE, DATA]


def write_undecided(challenger: str, reason: str, out: Path) -> list[str]:
    """Write both files for a release that there was nothing to compare with, and why it waits; their names.

    Raises
    ------
    OSError
        When the folder cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    kept = {"promote": False, "reason": reason, "checks": [], "slices": []}
    put(out / DATA, orjson.dumps(kept, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    about = {
        "promote": False,
        "reason": safe_text(reason, _TEXT_CHARS),
        "champion": None,
        "challenger": safe_text(challenger, _NAME_CHARS),
    }
    put(out / PAGE, _template().render(report=about).encode())
    return [PAGE, DATA]


def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("stream.runtime.trainer.gate_report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=False,
    )
    return environment.get_template("gate.html.jinja")


def page(report: GateReport) -> str:
    """The page's HTML."""
    # Our own drawing: what traffic says is outlines in it, or escaped by matplotlib.
    pictures = {name: Markup(svg) for name, svg in draw(report)}  # noqa: S704
    return _template().render(
        report=_about(report),
        checks=[_check(check) for check in report.checks],
        slices=[_slice(each) for each in _listed(report)],
        slices_left=max(0, len(report.slices) - SLICES_LISTED),
        failures=[safe_text(each, _TEXT_CHARS) for row in report.slices for each in row.failed],
        signals=list(_signals(report)),
        labels=_labels(report),
        pictures=pictures,
    )


def _about(report: GateReport) -> dict[str, Any]:
    before, after = report.champion, report.challenger
    attacks, benign = max(report.attacks, 1), max(report.benign, 1)
    cards = [
        ("attacks found", f"{after.found / attacks:.1%}", f"champion {before.found / attacks:.1%}"),
        ("benign flagged", f"{after.flagged / benign:.1%}", f"champion {before.flagged / benign:.1%}"),
        ("labelled attacks", f"{report.attacks:,}", f"{report.attacks_earlier:,} of them known to the champion"),
        ("attacks held out", f"{report.attacks_held_out:,}", "of them, from the challenger's training"),
        ("benign held out", f"{report.benign:,}", f"{report.benign_labelled:,} of them judged by somebody"),
        ("slices judged", f"{sum(each.judged for each in report.slices):,}", f"of {len(report.slices):,}"),
    ]
    return {
        "promote": report.promote,
        "reason": safe_text(report.reason, _TEXT_CHARS),
        "champion": safe_text(before.release, _NAME_CHARS),
        "challenger": safe_text(after.release, _NAME_CHARS),
        "session_fpr": f"{report.session_fpr:.2%}",
        "cards": cards,
    }


def _check(check: Check) -> dict[str, Any]:
    # Of slices the figures are how many broke a rule.
    share = _count if check.name == "slices" else _share
    return {
        "rule": _RULES.get(check.name, check.name),
        "ok": check.ok,
        "champion": share(check.champion),
        "challenger": share(check.challenger),
        "limit": share(check.limit),
        "interval": _interval(check.interval, signed=check.name.startswith("recall")),
        "sentence": safe_text(check.sentence, _TEXT_CHARS),
    }


def _listed(report: GateReport) -> list[Slice]:
    order = {id(each): at for at, each in enumerate(report.slices)}
    worst = sorted(report.slices, key=lambda each: (not each.failed, not each.judged, order[id(each)]))
    return worst[:SLICES_LISTED]


def _slice(each: Slice) -> dict[str, Any]:
    return {
        "key": each.key,
        "value": safe_text(each.value, _NAME_CHARS),
        "judged": each.judged,
        "failed": bool(each.failed),
        "attacks": f"{each.attacks:,}" if each.attacks else "",
        "found": f"{each.found_champion:,} → {each.found_challenger:,}" if each.attacks else "",
        "recall": f"{each.found_challenger / each.attacks:.1%}" if each.attacks else "",
        "recall_interval": _interval(each.recall_interval) if each.attacks else "",
        "benign": f"{each.benign:,}" if each.benign else "",
        "flagged": f"{each.flagged_champion:,} → {each.flagged_challenger:,}" if each.benign else "",
        "rate": f"{each.flagged_challenger / each.benign:.1%}" if each.benign else "",
        "rate_interval": _interval(each.flagged_interval) if each.benign else "",
    }


def _signals(report: GateReport) -> Iterator[dict[str, str]]:
    before, after = report.champion.by_signal, report.challenger.by_signal
    for name in sorted({*before, *after}, key=lambda name: (-after.get(name, 0), name)):
        yield {
            "name": safe_text(name or "none", _NAME_CHARS),
            "champion": f"{before.get(name, 0):,}",
            "challenger": f"{after.get(name, 0):,}",
        }


def _labels(report: GateReport) -> dict[str, Any] | None:
    labels = report.labels
    if labels is None:
        return None
    return {
        "refused": safe_text(labels.refused, _TEXT_CHARS) if labels.refused else "",
        "noise": f"{labels.noise:.1%}",
        "noise_max": f"{labels.noise_max:.0%}",
        "doubted": f"{labels.doubted:,}",
        "figures": {name: f"{value:g}" for name, value in sorted(labels.figures.items())},
        "analysts": [
            {
                "name": safe_text(each.analyst, _NAME_CHARS),
                "verified": each.verified,
                "labels": f"{each.labels:,}",
                "contradicted": f"{each.contradicted:,}",
                "benign_for_attack": f"{each.benign_for_attack:,}",
                "others": f"{each.others:.1%}",
                "shared": f"{each.disagreed:,} of {each.shared:,}",
                "p": f"{each.p_value:.2g}",
                "set_aside": safe_text(each.set_aside, _TEXT_CHARS) if each.set_aside else "",
            }
            for each in labels.analysts
        ],
    }


def _share(value: float | None) -> str:
    """A share in words that a table has room for.

    >>> _share(0.0123), _share(None)
    ('1.23 %', '')
    """
    return "" if value is None else f"{100 * value:.3g} %"


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _interval(interval: Interval | None, *, signed: bool = False) -> str:
    """Both ends; `signed` where it is a difference.

    >>> _interval((-0.01, 0.2), signed=True), _interval((0.01, 0.2))
    ('−1.0 to +20.0 points', '1.0 to 20.0 %')
    """
    if interval is None:
        return ""
    if signed:
        low, high = (f"{100 * end:+.1f}".replace("-", "−") for end in interval)
        return f"{low} to {high} points"
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"
