"""What a replay found, for a person to read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from stream.sources.lines import read_lines

_SEVERITIES = {2: "low", 3: "medium", 4: "high", 5: "critical"}
_EXCERPT_CHARS = 100
_LINE_BYTES_MAX = 64 * 2**20
_CLOSE = 3


class _Metadata(msgspec.Struct):
    tenant_uid: str
    sequence: int


class _Technique(msgspec.Struct):
    technique: dict[str, Any]


class _Info(msgspec.Struct):
    uid: str
    title: str
    attacks: list[_Technique] = []


class _Evidence(msgspec.Struct):
    data: dict[str, Any] = {}


class _Finding(msgspec.Struct):
    activity_id: int
    severity_id: int
    count: int
    start_time: int
    metadata: _Metadata
    finding_info: _Info
    unmapped: dict[str, Any]
    evidences: list[_Evidence] = []


_FINDING = msgspec.json.Decoder(_Finding)


def told(findings: Path) -> Iterator[str]:
    """Lines about every finding of a replay's `findings.jsonl` as its last revision has it, the gravest first.

    Excerpts are what traffic holds: redacted and without control characters, and not to be trusted.
    """
    last: dict[str, _Finding] = {}
    for line in read_lines(findings, _LINE_BYTES_MAX):
        finding = _FINDING.decode(line)
        last[finding.finding_info.uid] = finding
    if not last:
        yield "Nothing was found."
        return
    for finding in sorted(last.values(), key=lambda each: (-each.severity_id, each.start_time, each.finding_info.uid)):
        yield from _lines(finding)
    graves = [sum(each.severity_id == severity for each in last.values()) for severity in _SEVERITIES]
    counted = ", ".join(f"{n} {name}" for n, name in zip(graves, _SEVERITIES.values(), strict=True) if n)
    yield f"{len(last)} finding{'s' if len(last) > 1 else ''}: {counted}."


def _lines(finding: _Finding) -> Iterator[str]:
    about = finding.unmapped
    began = datetime.fromtimestamp(finding.start_time / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    severity = _SEVERITIES.get(finding.severity_id, str(finding.severity_id))
    state = "closed" if finding.activity_id == _CLOSE else "open"
    yield f"{severity.upper():<8}  {began}  {finding.metadata.tenant_uid}  {finding.finding_info.title}"
    techniques = " ".join(str(attack.technique.get("uid")) for attack in finding.finding_info.attacks)
    rare = ", ".join(f"{name} p={p:.2g}" for name, p in sorted(about.get("p", {}).items(), key=lambda item: item[1]))
    events = f"{finding.count} event{'s' if finding.count > 1 else ''}"
    yield f"          {about.get('entity_type')} {about.get('entity')}, {events}, {state}; {rare}; {techniques}"
    for evidence in finding.evidences[:1]:
        excerpt = " ".join(str(evidence.data.get("excerpt", "")).split())
        more = "…" if len(excerpt) > _EXCERPT_CHARS else ""
        yield f'          {evidence.data.get("role")}: "{excerpt[:_EXCERPT_CHARS]}{more}"'
