"""`replay --report`: one page about a replay, pictures and all, and the pictures as PNG beside it."""

from __future__ import annotations

import math
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from schemas.safe_text import safe_text
from stream.runtime.report.figures import COLOURS, SEVERITY, draw, time_range
from stream.runtime.report.gather import CLOSE, Run, gather, read_findings

PAGE = "report.html"
FINDINGS_SHOWN = 25
TENANTS_LISTED = 100
EVENTS_LISTED = 10
_NAME_CHARS = 120
_TEXT_CHARS = 1_000
_DECADES = 8
"""Of rarity: a signal's bar is full there."""
_TECHNIQUE = re.compile(r"AML\.T\d{4}(\.\d{3})?")


def write_report(out: Path, session_fpr: float) -> list[str]:
    """Write `report.html` and `report-*.png` of the replay in folder `out` into it; their names.

    The page loads nothing and runs nothing: text in it may be an attacker's, is escaped, and has no script to reach.

    Parameters
    ----------
    session_fpr
        The operating point of the replay.

    Raises
    ------
    OSError
        When the folder cannot be written.
    """
    run = gather(out)
    pictures: dict[str, Markup] = {}
    names = [PAGE]
    for name, svg, png in draw(run, session_fpr):
        # Our own drawing: what traffic says is outlines in it, or escaped by matplotlib.
        pictures[name] = Markup(svg)  # noqa: S704
        names.append(f"report-{name}.png")
        put(out / names[-1], png)
    put(out / PAGE, page(out, run, pictures, session_fpr).encode())
    return names


def page(out: Path, run: Run, pictures: dict[str, Markup], session_fpr: float) -> str:
    """The page's HTML."""
    environment = Environment(
        loader=PackageLoader("stream.runtime.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=False,
    )
    findings = read_findings(out, run.findings[:FINDINGS_SHOWN])
    return environment.get_template("report.html.jinja").render(
        run=_about(run, session_fpr),
        findings=[_finding(each) for each in findings],
        tenants=list(_tenants(run)),
        pictures=pictures,
    )


def put(path: Path, data: bytes) -> None:
    """Write a file at once and whole."""
    handle, name = tempfile.mkstemp(prefix=".writing-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


# -- the run -----------------------------------------------------------------------------------------------------------


def _about(run: Run, session_fpr: float) -> dict[str, Any]:
    flagged = int(run.flagged_sessions().sum())
    sessions = len(run.sessions)
    start, end = time_range(run.time_ms)
    outside = int(np.count_nonzero((run.time_ms < start) | (run.time_ms > end)))
    graves = Counter(each.severity_id for each in run.findings)
    gravest = ", ".join(f"{graves[each]} {SEVERITY.get(each, each)}" for each in sorted(graves, reverse=True))
    counts = np.bincount(run.decision, minlength=len(run.decisions))
    held = {name: int(count) for name, count in zip(run.decisions, counts, strict=True)}
    dropped = [f"{held[name]:,} {name}" for name in ("suppressed", "over_budget", "warmup") if held.get(name)]
    letters = int(run.summary.get("deadletters", 0))
    cards = [
        ("findings", f"{len(run.findings):,}", gravest or "none"),
        ("sessions flagged", f"{flagged:,}", f"{flagged / max(sessions, 1):.2%} of {sessions:,}"),
        ("events", f"{len(run.time_ms):,}", f"{run.late:,} late, {run.clamped:,} dated ahead"),
        ("tenants", f"{len(run.tenants):,}", f"{len({each.tenant for each in run.findings}):,} with findings"),
        ("flagged, not found", f"{sum(held.get(n, 0) for n in ('suppressed', 'over_budget', 'warmup')):,}",
         ", ".join(dropped) or "none held back"),
        ("dead letters", f"{letters:,}", f"of {int(run.summary.get('records', 0)):,} records"),
    ]  # fmt: skip
    return {
        "release": str(run.summary.get("release", "")),
        "opened": len(run.findings),
        "events": len(run.time_ms),
        "span": f"{_time(start)} to {_time(end)}" if len(run.time_ms) else "",
        "session_fpr": f"{session_fpr:.2%}",
        "outside": outside,
        "cards": cards,
        "tenants_left": max(0, len(run.tenants) - TENANTS_LISTED),
        "scores_sha256": str(run.summary.get("scores_sha256", ""))[:16],
        "findings_sha256": str(run.summary.get("findings_sha256", ""))[:16],
    }


def _tenants(run: Run) -> Iterator[dict[str, str]]:
    """A row for each tenant, those with most findings first."""
    events = np.bincount(run.tenant, minlength=len(run.tenants)).tolist()
    of_session = np.array(run.sessions, np.int64)
    sessions = np.bincount(of_session, minlength=len(run.tenants)).tolist()
    flagged = np.bincount(of_session[run.flagged_sessions()], minlength=len(run.tenants)).tolist()
    findings = Counter(each.tenant for each in run.findings)
    gravest: dict[str, int] = {}
    for each in run.findings:
        gravest[each.tenant] = max(gravest.get(each.tenant, 0), each.severity_id)
    order = sorted(range(len(run.tenants)), key=lambda t: (-findings[run.tenants[t]], -events[t], run.tenants[t]))
    for number in order[:TENANTS_LISTED]:
        name = run.tenants[number]
        yield {
            "name": safe_text(name, _NAME_CHARS),
            "events": f"{events[number]:,}",
            "sessions": f"{sessions[number]:,}",
            "flagged": f"{flagged[number]:,}",
            "share": f"{flagged[number] / max(sessions[number], 1):.1%}",
            "findings": f"{findings[name]:,}",
            "gravest": SEVERITY.get(gravest[name], str(gravest[name])) if name in gravest else "",
        }


# -- a finding ---------------------------------------------------------------------------------------------------------


def _finding(record: dict[str, Any]) -> dict[str, Any]:
    """What the page says of a finding; signals are whatever the record names."""
    info, about = record["finding_info"], record["unmapped"]
    severity = int(record["severity_id"])
    related = [str(each["uid"]) for each in info.get("related_events", [])]
    p = about.get("p_combined")
    return {
        "severity": SEVERITY.get(severity, str(severity)),
        "colour": COLOURS.get(severity, "#1f2933"),
        "test": bool(about.get("test")),
        "title": safe_text(str(info["title"]), _TEXT_CHARS),
        "desc": safe_text(str(info.get("desc", "")), _TEXT_CHARS),
        "when": _time(record["start_time"]),
        "tenant": safe_text(str(record["metadata"]["tenant_uid"]), _NAME_CHARS),
        "entity_type": safe_text(str(about.get("entity_type", "")), _NAME_CHARS),
        "entity": safe_text(str(about.get("entity", "")), _NAME_CHARS),
        "count": int(record["count"]),
        "turn": about.get("first_suspicious_turn") or about.get("turn"),
        "state": "closed" if record["activity_id"] == CLOSE else "open",
        "rarity": _rarity(p),
        "said": [_said(each) for each in record.get("evidences", [])],
        "signals": list(_signals(record)),
        "attacks": list(_attacks(info)),
        "owasp": [safe_text(str(each), _NAME_CHARS) for tag in info.get("tags", []) for each in tag.get("values", [])],
        "observables": [
            {key: safe_text(str(each.get(key, "")), _NAME_CHARS) for key in ("name", "value")}
            for each in record.get("observables", [])
        ],
        "related": [safe_text(str(uid), _NAME_CHARS) for uid in about.get("related_findings", [])],
        "uid": str(info["uid"]),
        "events": related[:EVENTS_LISTED],
        "more_events": max(0, int(info.get("related_events_count", 0)) - EVENTS_LISTED),
    }


def _said(evidence: dict[str, Any]) -> dict[str, Any]:
    data = evidence.get("data", {})
    return {
        "role": safe_text(str(data.get("role", "")), _NAME_CHARS),
        "tool": safe_text(str(data.get("tool") or ""), _NAME_CHARS),
        "message": data.get("message_index", ""),
        "text": safe_text(str(data.get("excerpt", "")), _TEXT_CHARS),
    }


def _signals(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Signals, the rarest first, with what would have been normal."""
    p_of = record["unmapped"].get("p", {})
    rows = []
    for analysis in record.get("anomaly_analyses", []):
        for observed in analysis.get("anomalies", []):
            name = str(observed.get("observation_parameter", ""))
            usual: dict[str, Any] = next(iter(analysis.get("baselines", [])), {})
            rows.append((p_of.get(name), name, observed, usual))
    for p, name, observed, usual in sorted(rows, key=lambda row: (2.0 if row[0] is None else row[0], row[1])):
        pattern = str(observed.get("observed_pattern") or "")
        yield {
            "name": safe_text(name, _NAME_CHARS),
            "rarity": "" if p is None else f"p = {p:.2g}",
            "width": _width(p),
            "value": _observation(observed),
            "baseline": _observation(usual),
            # Its p-value stands in a column of its own.
            "pattern": safe_text(re.sub(r"^p=\S+; ", "", pattern), _TEXT_CHARS),
        }


def _observation(observed: dict[str, Any]) -> str:
    for each in observed.get("observations", []):
        value = str(each.get("value", ""))
        try:
            return f"{float(value):.3g}"
        except ValueError:
            return safe_text(value, _NAME_CHARS)
    return ""


def _attacks(info: dict[str, Any]) -> Iterator[dict[str, str]]:
    for attack in info.get("attacks", []):
        named = attack.get("sub_technique") or attack.get("technique") or {}
        uid, name = str(named.get("uid", "")), str(named.get("name", ""))
        # A link is made of an id alone, never taken from a record.
        url = f"https://atlas.mitre.org/techniques/{uid}" if _TECHNIQUE.fullmatch(uid) else ""
        yield {"uid": safe_text(uid, _NAME_CHARS), "name": safe_text(name, _NAME_CHARS), "url": url}


def _width(p: float | None) -> int:
    """How full a signal's bar is, in per cent.

    >>> _width(1.0), _width(1e-4), _width(0.0), _width(None)
    (0, 50, 100, 0)
    """
    if p is None or p >= 1:
        return 0
    return 100 if p <= 0 else min(100, round(-math.log10(p) / _DECADES * 100))


def _rarity(p: float | None) -> str:
    """How rare a benign session like it is, in words.

    >>> _rarity(0.004), _rarity(None)
    ('1 in 250 benign sessions', 'rarity unknown')
    """
    if p is None:
        return "rarity unknown"
    if p < 1e-9:
        return "rarer than 1 in 1,000,000,000 benign sessions"
    return f"1 in {float(f'{1 / p:.2g}'):,.0f} benign sessions"


def _time(ms: float) -> str:
    """To the second; what no calendar holds as it is.

    >>> _time(1793491200000), _time(1e18)
    ('2026-11-01 00:00:00', '1000000000000000000')
    """
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return f"{ms:.0f}"
