"""A loop that is lied to: verdicts wrong at random, or by one analyst, and what audit and gate make of them.

    python -m tests.drills.poisoned_loop --seeds 5 --out out/poisoned
    python -m tests.drills.poisoned_loop --seeds 5 --audit-only --out out/poisoned-audit

A world a seed: benign days to train on, a labelling period with attacks in it, held-out days. The champion knows 40 %
of the attacks, as labelled earlier; it finds what it finds of another 40 % in the labelling period, and analysts give
their verdicts. The last 20 % are nobody's: on them is measured what a challenger of these verdicts would have done.
Nothing here reads `sample/live.jsonl.gz`. With `--audit-only` nothing is trained: what would be found is drawn.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from math import ceil
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
import orjson

from sample.records import ATTACKS, TRAIN
from schemas.corpus import CorpusSession
from schemas.corpus_records import to_native
from schemas.corpus_timeline import timeline
from schemas.label import Label, LabelledSegment, label_key
from schemas.verdict import BENIGN, TRUE_POSITIVE
from stream.config import EmbedderSettings, Settings, TrainerSettings
from stream.core import Core
from stream.inputs import InputBatch
from stream.record import Record
from stream.release import Release
from stream.runtime.embedders import load_embedder
from stream.steps.content import Embeds
from stream.training.attacks import AttackTexts
from stream.training.audit import Audit, Known, audit, known_sessions
from stream.training.dataset import FEW
from stream.training.effort import Effort
from stream.training.events import Gathered, arrange
from stream.training.gate import decide
from stream.training.gather import ingest_step, sessions_of
from stream.training.judged import Judged, Traffic, Truth, judge, truths
from stream.training.train import train

ANALYSTS = ("ada", "bo", "cy")
HOSTILE = "cy"
WRONG = 0.3
"""Share of verdicts that are wrong in the noisy scenario."""
EFFORT = Effort(epochs=3, steps_min=60, adapter_steps=0)
"""The bank is not what is tested: a short fit of it."""
AUDITED = (50, 150)
"""Labels of the audit alone."""
EXCERPTS, EXCERPT_CHARS = 3, 160
"""Of a finding that is drawn."""
TENANT_SESSIONS_MIN = 100
_AT_ONCE = 500
_EARLIER, _NOW = 0.4, 0.8
"""Shares of the attacks that were labelled earlier, and by the end of the labelling period."""
_TRAINED, _LABELLED = 0.6, 0.8
"""Shares of the benign sessions, by time: the champion's, and by the end of the labelling period."""

SCENARIOS = {
    "clean": "three analysts, every verdict right",
    "noisy": "three analysts, 30 % of verdicts wrong at random",
    "hostile": "one of three marks every attack Benign",
    "alone": "the only analyst marks every attack Benign",
    "sly": "one of three marks every second attack Benign",
    "colluding": "two of three mark every attack Benign",
}
LENIENT = 0.02
"""Of `gate.recall_drop_max`, beside its default: what the gate decides where a few attacks may be lost."""
TRAINED = ("clean", "noisy", "hostile", "alone")
"""Scenarios whose challengers are trained; of the others the audit alone is measured."""


@dataclass(frozen=True, slots=True)
class World:
    """What a seed's loop starts from."""

    settings: Settings
    embedder: Embeds
    seed: int
    trained: list[Record]
    """Benign events that the champion knows."""
    labelling: list[Record]
    """Events of the labelling period, attacks among them."""
    held_out: list[Record]
    """Benign events after it."""
    earlier: list[Record]
    """Events of attacks that were labelled before."""
    shown: list[Record]
    """Of them only the messages that carry the attack: what findings had shown of them."""
    unseen: list[Record]
    """Events of attacks that nobody labels."""
    attacks: dict[tuple[str, str], CorpusSession]
    """All attacks, by tenant and session."""
    earlier_names: frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Found:
    """A session that the champion has found, with what the finding shows."""

    name: tuple[str, str]
    excerpts: list[str]
    attack: bool
    """What it is in truth."""


def world(
    settings: Settings, embedder: Embeds, benign: Sequence[CorpusSession], attacks: Sequence[CorpusSession], seed: int
) -> World:
    """Deal attacks to before, during and after the labelling period, by family, and place them at tenants."""
    rng = Random(seed)
    ordered = sorted(benign, key=lambda session: session.start_ms or 0)
    first, second = int(_TRAINED * len(ordered)), int(_LABELLED * len(ordered))
    parts = ordered[:first], ordered[first:second], ordered[second:]
    dealt: tuple[list[CorpusSession], ...] = ([], [], [])
    families: dict[str, list[CorpusSession]] = {}
    for attack in attacks:
        families.setdefault(_family(attack), []).append(attack)
    for _, own in sorted(families.items()):
        rng.shuffle(own)
        a, b = round(_EARLIER * len(own)), round(_NOW * len(own))
        for into, some in zip(dealt, (own[:a], own[a:b], own[b:]), strict=True):
            into.extend(some)
    earlier, now, unseen = (placed(some, part, rng) for some, part in zip(dealt, parts, strict=True))
    return World(
        settings=settings,
        embedder=embedder,
        seed=seed,
        trained=records_of(parts[0], settings),
        labelling=records_of([*parts[1], *now], settings),
        held_out=records_of(parts[2], settings),
        earlier=records_of(earlier, settings),
        shown=records_of([_payload(session) for session in earlier], settings),
        unseen=records_of(unseen, settings),
        attacks={(session.tenant or "", session.session): session for session in (*earlier, *now, *unseen)},
        earlier_names=frozenset((session.tenant or "", session.session) for session in earlier),
    )


def settled(benign: Sequence[CorpusSession]) -> list[CorpusSession]:
    """Sessions of tenants that have enough of them: of others calibration, and not the labels, would be measured."""
    counts = Counter(session.tenant for session in benign)
    return [session for session in benign if counts[session.tenant] >= TENANT_SESSIONS_MIN]


def records_of(sessions: Iterable[CorpusSession], settings: Settings) -> list[Record]:
    """Events of `sessions`, normalised and redacted as ingest does, in the order of time."""
    ingest = ingest_step(settings, "native")
    raw = [
        Record("corpus", 0, 0, timed.time_ms, None, orjson.dumps(to_native(timed.session, timed.call, timed.time_ms)))
        for timed in timeline(sorted(sessions, key=lambda session: session.start_ms or 0))
    ]
    events: list[Record] = []
    for low in range(0, len(raw), _AT_ONCE):
        for event in ingest.step(raw[low : low + _AT_ONCE]).events:
            time_ms = orjson.loads(event.value)["event_time_ms"]
            events.append(Record("corpus", event.partition, len(events), time_ms, event.key, event.value))
    return events


def placed(attacks: Sequence[CorpusSession], among: Sequence[CorpusSession], rng: Random) -> list[CorpusSession]:
    """Attacks, each at a tenant (its own where it has one), with a key and at a time that one of its sessions has."""
    own: dict[str, list[CorpusSession]] = {}
    for session in among:
        own.setdefault(session.tenant or "", []).append(session)
    out = []
    for attack in attacks:
        host = rng.choice(own.get(attack.tenant or "", list(among)))
        start = (host.start_ms or 0) + rng.randrange(60_000)
        out.append(
            msgspec.structs.replace(
                attack, tenant=host.tenant, key=host.key, tools=attack.tools or host.tools, start_ms=start, calls_ms=()
            )
        )
    return out


def found(world: World, champion: Release) -> list[Found]:
    """What the champion finds in the labelling period."""
    core = Core(world.settings, champion, world.embedder)
    shown: dict[tuple[str, str], dict[str, None]] = {}
    for low in range(0, len(world.labelling), _AT_ONCE):
        for record in core.step(InputBatch(world.labelling[low : low + _AT_ONCE])).findings:
            finding = orjson.loads(record.value)
            about = finding["unmapped"]
            if about["entity_type"] == "session":
                own = shown.setdefault((finding["metadata"]["tenant_uid"], about["entity"]), {})
                own.update(
                    (each["data"]["excerpt"], None) for each in finding["evidences"] if "excerpt" in each["data"]
                )
    return [Found(name, list(own), name in world.attacks) for name, own in sorted(shown.items())]


def verdicts(findings: Sequence[Found], scenario: str, rng: Random) -> list[Label]:
    """A label for each finding, by one of the analysts, as the scenario has it."""
    labels = []
    for number, each in enumerate(findings):
        analyst = HOSTILE if scenario == "alone" else rng.choice(ANALYSTS)
        hostile = {"hostile": (HOSTILE,), "alone": (HOSTILE,), "sly": (HOSTILE,), "colluding": ("bo", HOSTILE)}
        said = each.attack
        if scenario == "noisy" and rng.random() < WRONG:
            said = not said
        if analyst in hostile.get(scenario, ()) and (scenario != "sly" or rng.random() < 0.5):
            said = False
        labels.append(label_of(each, analyst, attack=said, number=number))
    return labels


def label_of(each: Found, analyst: str, *, attack: bool, number: int) -> Label:
    """What `tidegate feedback` would make of a verdict on the finding."""
    tenant, session = each.name
    return Label(
        finding_uid=sha256(orjson.dumps(each.name)).hexdigest()[:32],
        analyst=analyst,
        identity="unverified",
        verdict_id=TRUE_POSITIVE if attack else BENIGN,
        verdict_time=1_000_000 + number,
        scope="session",
        teaches="attack" if attack else "benign",
        disputed=False,
        tenant=tenant,
        entity_type="session",
        entity=session,
        session=session,
        key_hash=None,
        title="",
        techniques=["AML.T0051"],
        signals={},
        p={},
        p_combined=None,
        release="",
        revision=1,
        first_seen_ms=0,
        last_seen_ms=0,
        events=[],
        events_told=0,
        segments=[LabelledSegment(event_id="", role="user", text=text, message_index=0) for text in each.excerpts],
    )


def texts_of(label: Label) -> list[str]:
    """The excerpts of a label."""
    return [segment.text for segment in label.segments]


def known_of(world: World) -> Known:
    """What is known without the new labels: the champion's traffic, and the attacks labelled earlier."""
    return known_sessions([*world.trained, *world.shown], world.earlier_names, world.settings, seed=world.seed)


def audited(world: World, labels: Sequence[Label], known: Known) -> Audit:
    """The audit of the labels."""
    return audit(labels, texts_of, world.embedder, seed=world.seed, settings=world.settings.gate, known=known)


def champion_of(world: World, effort: Effort = EFFORT) -> Release:
    """Trained on benign days, and on the attacks labelled earlier."""
    return _trained(world, world.trained, [], effort, "champion", labelled=True)


def challenger_of(
    world: World, labels: Sequence[Label], believed: frozenset[bytes] | None, effort: Effort = EFFORT
) -> tuple[Release, list[Label]]:
    """What the labels make, and those that counted; `believed` are the keys that the audit has left, None asks nobody.

    Sessions called attacks teach the classifier and are no traffic to learn from; sessions called benign are. Those
    whose labels are not believed are left out of both, and so are attacks that nobody found: here they would be one
    session in twelve of what is learned, as they are in no traffic. Some attacks are held out, for the gate.
    """
    counted = [each for each in labels if believed is None or label_key(each.finding_uid, each.analyst) in believed]
    benign = {(each.tenant, each.session or "") for each in counted if each.teaches == "benign"}
    out = {*world.attacks, *((each.tenant, each.session or "") for each in labels)} - benign
    heard = [record for record in world.labelling if _name(record) not in out]
    kept_back = held_back(counted)
    attacks = [each for each in counted if each.teaches == "attack" and (each.tenant, each.session) not in kept_back]
    return _trained(world, [*world.trained, *heard], attacks, effort, "challenger", labelled=False), counted


def held_back(counted: Sequence[Label]) -> frozenset[tuple[str, str]]:
    """Attack sessions that were labelled and teach nothing: as many as the trainer holds out, drawn by their uids."""
    attacks = sorted((each for each in counted if each.teaches == "attack"), key=lambda each: each.finding_uid)
    wanted = max(ceil(TrainerSettings().held_out_share * len(attacks)), min(FEW, len(attacks) // 2))
    return frozenset((each.tenant, each.session or "") for each in attacks[:wanted])


def judged_by_both(
    world: World, champion: Release, challenger: Release, counted: Sequence[Label]
) -> tuple[Judged, Judged]:
    """What the gate compares, by what is believed to be true, as the trainer would have it."""
    truth = {name: Truth("attack", _family(world.attacks[name]), earlier=True) for name in world.earlier_names}
    truth |= truths(counted, {label_key(each.finding_uid, each.analyst) for each in counted})
    labelled = {(each.tenant, each.session or "") for each in counted}
    history = [*world.earlier, *(record for record in world.labelling if _name(record) in labelled)]
    kept_back = held_back(counted)
    held_out = [*(record for record in world.labelling if _name(record) in kept_back), *world.held_out]
    traffic = Traffic(held_out, history, truth)
    heard = [record for record in world.labelling if _name(record) not in world.attacks]
    before = judge(traffic, champion, world.settings, world.embedder, heard=heard)
    return before, judge(traffic, challenger, world.settings, world.embedder)


def in_truth(world: World, release: Release) -> dict[str, float]:
    """Recall on attacks that nobody labelled, and on those labelled earlier; benign held-out sessions flagged."""
    truth = {name: Truth("attack") for name in world.attacks}
    judged: Judged = judge(
        Traffic(world.held_out, [*world.unseen, *world.earlier], truth), release, world.settings, world.embedder
    )
    earlier = np.array([name in world.earlier_names for name in zip(judged.tenant, judged.session, strict=True)])
    return {
        "recall_unseen": round(float(judged.flagged[judged.attack & ~earlier].mean()), 4),
        "recall_earlier": round(float(judged.flagged[judged.attack & earlier].mean()), 4),
        "benign_flagged": round(float(judged.flagged[judged.benign].mean()), 4),
    }


def _trained(
    world: World, records: Sequence[Record], labels: Sequence[Label], effort: Effort, name: str, *, labelled: bool
) -> Release:
    events = arrange(map(Gathered, records), world.settings.core.future_ms)
    trained = train(
        events,
        world.embedder,
        world.embedder.space_id,  # type: ignore[attr-defined]
        world.settings,
        seed=world.seed,
        labelled=labelled,
        effort=effort,
        attacks=_attack_texts(world, labels),
    )
    return replace(trained.release, name=name)


def _attack_texts(world: World, labels: Sequence[Label]) -> AttackTexts:
    """The attacks labelled earlier, and what the labels call attacks."""
    from models.training.attack_classifier import attack_classes

    known = known_sessions(world.shown, world.earlier_names, world.settings, seed=world.seed)
    texts, classes, source, group = [], [], [], []
    for own, session in zip(known.texts, known.group, strict=True):
        for text in own:
            texts.append(text)
            classes.append(attack_classes(None, text))
            source.append("earlier")
            group.append(session)
    for label in labels:
        for text in texts_of(label):
            texts.append(text)
            classes.append(attack_classes(None, text))
            source.append("labels")
            group.append(label.session or "")
    return AttackTexts(world.embedder.encode(texts), np.array(classes, np.bool_), source, group)


def _payload(session: CorpusSession) -> CorpusSession:
    """The session with those of its messages that are marked as its attack, where any are."""
    marked = tuple(turn for turn in session.turns if turn.payload)
    return msgspec.structs.replace(session, turns=marked or session.turns, calls_ms=())


def _family(session: CorpusSession) -> str:
    return (session.attack_family or "").split(".")[0]


def _name(record: Record) -> tuple[str, str]:
    event = orjson.loads(record.value or b"{}")
    return event["tenant"], event["session"]


# -- the figures -------------------------------------------------------------------------------------------------------


def outcome_of_audit(audit: Audit, scenario: str) -> dict[str, bool]:
    """Whether the audit saw the lie, and whether it blamed an honest analyst."""
    hostile = {"hostile": {HOSTILE}, "alone": {HOSTILE}, "sly": {HOSTILE}, "colluding": {"bo", HOSTILE}}
    liars = hostile.get(scenario, set())
    aside = set(audit.set_aside)
    return {
        "refused": audit.refused is not None,
        "named": bool(liars) and liars <= aside,
        "honest_set_aside": bool(aside - liars) and scenario != "noisy",
        "caught": audit.refused is not None or (bool(liars) and liars <= aside),
    }


def measured(world: World, draws: int, say: Any) -> Iterator[dict[str, Any]]:
    """A row for each scenario and draw of analysts; challengers are trained for the first draw."""
    champion = champion_of(world)
    truth = in_truth(world, champion)
    say(f"seed {world.seed}: champion {truth}")
    findings, known = found(world, champion), known_of(world)
    attacks = sum(each.attack for each in findings)
    say(f"seed {world.seed}: {len(findings)} findings, {attacks} of them attacks")
    for scenario in SCENARIOS:
        for draw in range(draws):
            labels = verdicts(findings, scenario, Random(f"{world.seed} {draw} {scenario}"))
            checked = audited(world, labels, known)
            row: dict[str, Any] = {"seed": world.seed, "draw": draw, "scenario": scenario, "labels": len(labels)}
            row |= {"attacks_found": attacks, "noise": checked.noise, "audit": outcome_of_audit(checked, scenario)}
            if draw == 0 and scenario in TRAINED:
                row |= _trained_on(world, champion, labels, checked)
                row["champion"] = truth
            say(" ".join(str(row.get(name, "")) for name in ("seed", "scenario", "draw", "noise", "audit")))
            say(" ".join(str(row.get(name, "")) for name in ("unchecked", "gate_alone", "checked", "loop")))
            yield row


def _trained_on(world: World, champion: Release, labels: Sequence[Label], checked: Audit) -> dict[str, Any]:
    """What challengers of the labels are worth, with and without the audit, and whether the gate lets them through."""
    unchecked, counted = challenger_of(world, labels, None)
    row: dict[str, Any] = {"unchecked": in_truth(world, unchecked)}
    row["gate_alone"] = _decisions(world, champion, unchecked, counted, None)
    teaching = {label_key(label.finding_uid, label.analyst) for label in labels}
    if checked.refused is not None:
        row["loop"] = _refused(f"Refused: the labels are not believed: {checked.refused}.")
    elif checked.kept == teaching:
        # The audit has changed nothing.
        row["checked"], row["loop"] = row["unchecked"], row["gate_alone"]
    elif not checked.kept:
        row["loop"] = _refused(f"Nothing is left to learn from: {checked.set_aside}.")
    else:
        challenger, counted = challenger_of(world, labels, checked.kept)
        row["checked"] = in_truth(world, challenger)
        row["loop"] = _decisions(world, champion, challenger, counted, checked)
    return row


def _decisions(
    world: World, champion: Release, challenger: Release, counted: Sequence[Label], audit: Audit | None
) -> dict[str, Any]:
    """The gate's decision as it stands by default, and with some recall to lose."""
    before, after = judged_by_both(world, champion, challenger, counted)
    gate = world.settings.gate
    report = decide(before, after, gate, audit=audit)
    lenient = decide(before, after, replace(gate, recall_drop_max=LENIENT), audit=audit)
    return {
        "promote": report.promote,
        "promote_lenient": lenient.promote,
        "reason": report.reason,
        "reason_lenient": lenient.reason,
        "failed": [check.name for check in report.checks if not check.ok],
    }


def _refused(reason: str) -> dict[str, Any]:
    return {
        "promote": False,
        "promote_lenient": False,
        "reason": reason,
        "reason_lenient": reason,
        "failed": ["labels"],
    }


def audited_alone(world: World, say: Any) -> Iterator[dict[str, Any]]:
    """Rows of the audit without any release: findings are drawn; labels few and many, earlier attacks known and not."""
    rng = Random(world.seed)
    said = known_sessions(world.labelling, set(world.attacks), world.settings, seed=world.seed)
    every = [
        # Names of sessions are told apart by tenant in the traffic; here one is as good as another.
        Found(("drawn", name), [text[:EXCERPT_CHARS] for text in texts[:EXCERPTS]], bool(attack))
        for name, texts, attack in zip(said.group, said.texts, said.attack.tolist(), strict=True)
    ]
    attacks, benign = ([each for each in every if each.attack == kind] for kind in (True, False))
    whole = known_of(world)
    traffic = np.flatnonzero(~whole.attack).tolist()
    ordinary = Known([whole.texts[at] for at in traffic], whole.attack[traffic], [whole.group[at] for at in traffic])
    for count in AUDITED:
        for knows, known in (("traffic", ordinary), ("traffic_and_earlier_attacks", whole)):
            for scenario in TRAINED:
                some = rng.sample(attacks, min(len(attacks), int(0.8 * count)))
                findings = [*some, *rng.sample(benign, count - len(some))]
                checked = audited(world, verdicts(findings, scenario, rng), known)
                name = f"{scenario}_{count}_{knows}"
                row = {"seed": world.seed, "draw": 0, "scenario": name, "labels": count, "noise": checked.noise}
                row["audit"] = outcome_of_audit(checked, scenario)
                say(f"seed {world.seed} {name}: {checked.noise} {row['audit']}")
                yield row


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Flat figures of each scenario."""
    flat: dict[str, Any] = {}
    for scenario in dict.fromkeys(row["scenario"] for row in rows):
        own = [row for row in rows if row["scenario"] == scenario]
        flat[f"{scenario}_loops"] = len(own)
        flat[f"{scenario}_labels_median"] = float(np.median([row["labels"] for row in own]))
        for name in ("refused", "named", "caught", "honest_set_aside"):
            flat[f"{scenario}_audit_{name}"] = sum(row["audit"][name] for row in own)
        flat[f"{scenario}_noise_least"] = min(row["noise"] for row in own)
        flat[f"{scenario}_noise_most"] = max(row["noise"] for row in own)
        trained = [row for row in own if "unchecked" in row]
        if trained:
            flat[f"{scenario}_trained"] = len(trained)
            flat[f"{scenario}_gate_alone_refused"] = sum(not row["gate_alone"]["promote"] for row in trained)
            flat[f"{scenario}_gate_alone_refused_lenient"] = sum(
                not r["gate_alone"]["promote_lenient"] for r in trained
            )
            flat[f"{scenario}_loop_promoted"] = sum(row["loop"]["promote"] for row in trained)
            flat[f"{scenario}_loop_promoted_lenient"] = sum(row["loop"]["promote_lenient"] for row in trained)
            for which in ("champion", "unchecked", "checked"):
                with_it = [row for row in trained if which in row]
                for figure in ("recall_unseen", "recall_earlier", "benign_flagged") if with_it else ():
                    mean = float(np.mean([row[which][figure] for row in with_it]))
                    flat[f"{scenario}_{which}_{figure}"] = round(mean, 4)
    return flat


def main() -> None:
    """Measure, and write `summary.json` and `loops.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--draws", type=int, default=4, help="draws of analysts a seed, for the audit alone")
    parser.add_argument("--every", type=int, default=3, help="take every so many benign sessions")
    parser.add_argument("--audit-only", action="store_true", help="train nothing")
    parser.add_argument("--out", type=Path, default=Path("out/poisoned"))
    arguments = parser.parse_args()
    settings = Settings(embedder=EmbedderSettings(device="cpu"))
    embedder = load_embedder(settings.embedder)
    benign, attacks = settled(list(sessions_of(TRAIN)))[:: arguments.every], list(sessions_of(ATTACKS))
    begun = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - begun:7.1f} s  {what}", flush=True)

    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for seed in range(1, arguments.seeds + 1):
        own = world(settings, embedder, benign, attacks, seed)
        for row in audited_alone(own, say) if arguments.audit_only else measured(own, arguments.draws, say):
            rows.append(row)
            lines = b"".join(orjson.dumps(each, option=orjson.OPT_SORT_KEYS) + b"\n" for each in rows)
            (arguments.out / "loops.jsonl").write_bytes(lines)
            (arguments.out / "summary.json").write_bytes(
                orjson.dumps(summary(rows), option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2)
            )


if __name__ == "__main__":
    main()
