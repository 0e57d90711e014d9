"""The gate of a job: whose labels are believed, and whether the challenger takes the champion's place."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from schemas.label import Label, label_key
from schemas.manifest import Manifest
from stream.config import Settings
from stream.errors import StateError
from stream.release import Release
from stream.runtime.release.registry import Registry
from stream.runtime.release_store import read_manifest
from stream.steps.content import Embeds
from stream.training.attack_words import label_texts
from stream.training.capture import Captured, Place, Session
from stream.training.dataset import DataSet

if TYPE_CHECKING:
    from stream.training.audit import Audit

_LOG = logging.getLogger(__name__)

GATE_JSON = "gate.json"
_KNOWN_MIN = 200
"""Sessions at least that labels are held against, where they are fewer than twice the labels."""
_NOTHING_IN_SERVICE = (
    "Nothing is in service to compare it with: look at its card, and promote it with 'tidegate release promote "
    "--override-gate --why …'."
)


@dataclass(frozen=True, slots=True)
class Gated:
    """What the gate said, as it was kept."""

    passed: bool
    decision: str
    """In a sentence."""
    metrics: dict[str, float]
    slices: list[dict[str, str | float]]

    @classmethod
    def read(cls, folder: Path) -> Gated:
        """From the directory that `gate` filled."""
        plain: dict[str, Any] = orjson.loads((folder / GATE_JSON).read_bytes())
        return cls(plain["promote"], plain["reason"], _metrics(plain), _slices(plain))


def audited(
    labels: Sequence[Label],
    captured: Captured,
    found: Sequence[Place],
    embedder: Embeds,
    settings: Settings,
    seed: int,
) -> tuple[Audit | None, frozenset[bytes]]:
    """What the audit says of the labels, and the keys of those that are not believed.

    What nobody found or judged is taken for benign there, and the attacks of `trainer.corpus` for attacks.

    Raises
    ------
    UsageError
        When a file of the corpus cannot be read.
    """
    from stream.training.attacks import attack_sessions
    from stream.training.audit import audit, known_sessions, with_attacks

    teaching = {label_key(label.finding_uid, label.analyst) for label in labels if label.teaches is not None}
    if not teaching:
        return None, frozenset()
    told = {captured.session_at(place) for place in found if place in captured.of_place}
    told |= {(label.tenant, event.session) for label in labels for event in label.events}
    quiet = sorted(captured.of_session.keys() - told, key=_drawn)[: max(_KNOWN_MIN, 2 * len(teaching))]
    traffic = [captured.records[at] for name in quiet for at in captured.of_session[name]]
    corpus = attack_sessions([Path(path) for path in settings.trainer.corpus], settings)
    known = with_attacks(
        known_sessions(traffic, set(), settings, seed=seed),
        ((session.session, own) for session, own in corpus),
        seed=seed,
    )
    said = audit(
        labels,
        lambda label: label_texts(captured, label),
        embedder,
        seed=seed,
        settings=settings.gate,
        known=known,
    )
    if said.refused is not None:
        return said, frozenset(teaching)
    return said, frozenset(teaching - said.kept)


def gate(
    out: Path,
    data: DataSet,
    labels: Sequence[Label],
    audit: Audit | None,
    champion: tuple[Release | None, Manifest | None],
    challenger: Release,
    settings: Settings,
    embedder: Embeds,
) -> None:
    """Let both releases judge what was held out and all labelled history, and keep the report in directory `out`."""
    # It draws with matplotlib, which takes a second to import.
    from stream.runtime.trainer.gate_report.page import write_gate_report, write_undecided

    in_service, manifest = champion
    if in_service is None or manifest is None:
        write_undecided(challenger.name, _NOTHING_IN_SERVICE, out)
        return
    from stream.training.gate import decide
    from stream.training.judged import Traffic, judge, truths

    kept_keys = audit.kept if audit is not None else frozenset[bytes]()
    known = truths(labels, kept_keys, learned_findings(manifest, settings))
    tasks = {name: fact.task for name, fact in data.sessions.items()}
    traffic = Traffic(data.held_out, data.labelled, known, tasks)
    # The champion's tenants have gone on learning in service, the challenger's with its training.
    report = decide(
        judge(traffic, in_service, settings, embedder, heard=data.heard),
        judge(traffic, challenger, settings, embedder),
        settings.gate,
        audit=audit,
    )
    write_gate_report(report, out)


def learned_findings(champion: Manifest, settings: Settings) -> frozenset[str]:
    """Uids of the findings whose verdicts the champion was made with, and those before it as far as they are here.

    A parent counts if `[release]` of the settings vouches for it as for a release that is served; the line ends at the
    first that is not in the registry or not vouched for.
    """
    places = {manifest.name: path for path, manifest in Registry(settings).manifests()}
    found: set[str] = set()
    seen: set[str] = set()
    each = champion
    while True:
        seen.add(each.name)
        if each.data.labels is not None:
            found.update(each.data.labels.findings)
        parent = each.parent
        if parent is None or parent in seen:
            return frozenset(found)
        if parent not in places:
            _LOG.info(
                "release %s, before %s, is not in the registry: what it knew is not told apart", parent, each.name
            )
            return frozenset(found)
        try:
            each = read_manifest(places[parent], settings)
        except StateError as error:
            _LOG.warning("what the release before %s knew is not told apart: %s", each.name, error)
            return frozenset(found)


def _drawn(name: Session) -> bytes:
    """An order of sessions that nobody chose."""
    return blake2b("\x1f".join(name).encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _metrics(plain: dict[str, Any]) -> dict[str, float]:
    """Figures of the checks, for manifest and lineage."""
    return {
        f"gate_{check['name']}_{whose}": float(check[whose])
        for check in plain["checks"]
        for whose in ("champion", "challenger")
        if check.get(whose) is not None
    }


def _slices(plain: dict[str, Any]) -> list[dict[str, str | float]]:
    """Slices that the gate judged, as rows of the card."""
    return [
        {
            "slice": f"{each['key']} {each['value']}",
            "attacks": each["attacks"],
            "found before": each["found_champion"],
            "found now": each["found_challenger"],
            "benign": each["benign"],
            "flagged before": each["flagged_champion"],
            "flagged now": each["flagged_challenger"],
        }
        for each in plain["slices"]
        if each["recall_judged"] or each["flagged_judged"]
    ]
