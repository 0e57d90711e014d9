"""Which ATLAS technique a finding points to, and under which OWASP heading it falls.

References
----------
MITRE ATLAS 5.6; OWASP Top 10 for LLM Applications 2025 (numbers change with the year, so labels carry it).
"""

from __future__ import annotations

from dataclasses import dataclass

ATLAS_VERSION = "5.6.0"


@dataclass(frozen=True, slots=True)
class Technique:
    """An ATLAS technique with one of its tactics; a sub-technique names its parent."""

    uid: str
    name: str
    tactic_uid: str
    tactic: str
    owasp: tuple[str, ...]
    parent: str | None = None


_TECHNIQUES = (
    Technique("AML.T0012", "Valid Accounts", "AML.TA0004", "Initial Access", ()),
    Technique("AML.T0024", "Exfiltration via AI Inference API", "AML.TA0010", "Exfiltration", ("LLM02:2025",)),
    Technique("AML.T0029", "Denial of AI Service", "AML.TA0011", "Impact", ("LLM10:2025",)),
    Technique("AML.T0034", "Cost Harvesting", "AML.TA0011", "Impact", ("LLM10:2025",)),
    Technique("AML.T0051", "LLM Prompt Injection", "AML.TA0005", "Execution", ("LLM01:2025",)),
    Technique("AML.T0051.000", "Direct", "AML.TA0005", "Execution", ("LLM01:2025",), "AML.T0051"),
    Technique("AML.T0051.001", "Indirect", "AML.TA0005", "Execution", ("LLM01:2025",), "AML.T0051"),
    Technique("AML.T0053", "AI Agent Tool Invocation", "AML.TA0005", "Execution", ("LLM06:2025",)),
    Technique("AML.T0054", "LLM Jailbreak", "AML.TA0012", "Privilege Escalation", ("LLM01:2025",)),
    Technique("AML.T0056", "Extract LLM System Prompt", "AML.TA0010", "Exfiltration", ("LLM07:2025",)),
    Technique("AML.T0057", "LLM Data Leakage", "AML.TA0010", "Exfiltration", ("LLM02:2025",)),
    Technique(
        "AML.T0086",
        "Exfiltration via AI Agent Tool Invocation",
        "AML.TA0010",
        "Exfiltration",
        ("LLM02:2025", "LLM06:2025"),
    ),
)

TECHNIQUES = {technique.uid: technique for technique in _TECHNIQUES}
"""Every technique that a finding may name, by its id."""
