"""Rows and facts of made-up systems: a score is a task's own height, a session's, and for attacks what is found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from evaluation.report.facts import Absent, Cost, Counted, Day, DriftEvent, Facts, FirstFinding, PoisonEvent, StreamRun
from evaluation.row import Row

HEIGHTS = {"tidegate": 3.5, "tidegate+labels": 3.8, "tidegate-novelty": 3.2, "tidegate-provenance": 2.6,
           "ecod": 0.6, "length": 0.3, "nearest neighbour": 1.4, "regex": 0.9}  # fmt: skip
FAMILIES = {"important": 1.2, "important+goal": 0.6, "system+goal": 0.7, "system": 0.9, "system+diverse": 0.65}
NOMINAL = 0.01


def row(**given: Any) -> Row:
    """One line, benign and not flagged but for what is `given`."""
    about: dict[str, Any] = {
        "protocol": "paired", "seed": 0, "system": "tidegate", "tenant": "t-1", "session": "s-1", "family": "",
        "task": "t-1/1", "label": "benign", "score": 0.0, "flagged": False, "first_finding_turn": None, "p": 0.5,
        "obeyed": None, "signal": "novelty", "events": 4, "slices": {},
    }  # fmt: skip
    return Row(**{**about, **given})


PROTOCOLS = ("paired", "splice", "session", "hard_negatives", "stream", "slices")


def rows(
    seeds: int = 2, tasks: int = 24, heights: dict[str, float] = HEIGHTS, protocols: Sequence[str] = PROTOCOLS
) -> Iterator[Row]:
    """Rows of some protocols; the same every time."""
    random = np.random.default_rng(0)
    for seed in range(seeds):
        for task in random.permutation(tasks)[: tasks // 2]:
            for at, session in enumerate(_sessions(random, int(task))):
                judged = list(_judged(random, seed, int(task), at, session, heights))
                yield from (each for each in judged if each.protocol in protocols)


def _sessions(random: np.random.Generator, task: int) -> Iterator[dict[str, Any]]:
    height = random.normal()
    for _ in range(3):
        yield {"protocol": "paired", "label": "benign", "height": height}
        yield {"protocol": "splice", "label": "benign", "height": height + 0.3}
        yield {"protocol": "session", "label": "benign", "height": height}
        yield {"protocol": "slices", "label": "benign", "height": height + (1.2 if task % 3 == 2 else 0)}
        yield {"protocol": "stream", "label": "benign", "height": height}
        yield {"protocol": "hard_negatives", "label": "benign", "height": height}
    yield {"protocol": "paired", "label": "control", "family": "ctrl", "height": height + 0.2}
    for source in ("seen", "unseen"):
        for kind in ("recipes", "chemistry"):
            about = {"label": "benign", "family": kind, "slices": {"source": source}}
            yield {"protocol": "hard_negatives", "height": height + (1.5 if source == "unseen" else 0.3), **about}
    for family, strength in FAMILIES.items():
        obeyed = None if "+" in family else bool(task % 2)
        for protocol in ("paired", "slices"):
            yield {"protocol": protocol, "label": "attack", "family": family, "strength": strength, "height": height,
                   "obeyed": obeyed}  # fmt: skip
    for protocol, families in (("splice", ("jailbreak", "red team")), ("session", ("jailbreak", "red team")),
                               ("stream", ("tool loop", "slow exfiltration", "stolen key"))):  # fmt: skip
        for at, family in enumerate(families):
            yield {"protocol": protocol, "label": "attack", "family": family, "strength": 0.5 + 0.4 * at, "height": 0.0}


def _judged(
    random: np.random.Generator, seed: int, task: int, at: int, about: dict[str, Any], heights: dict[str, float]
) -> Iterator[Row]:
    tenant = f"team-{task % 3}"
    slices = {"language": ("de", "en", "zh")[task % 3], "length": ("short", "long")[at % 2], **about.get("slices", {})}
    own = about["height"] + random.normal(0, 0.7)
    for system, height in heights.items():
        score = own + about.get("strength", 0.0) * height + random.normal(0, 0.3)
        # Of a normal distribution, so that p is not far from what it says.
        p = float(np.exp(-0.717 * max(score, 0) - 0.416 * max(score, 0) ** 2) * 0.5)
        flagged = p <= NOMINAL
        yield row(
            protocol=about["protocol"], seed=seed, system=system, tenant=tenant, session=f"{tenant}-{task}-{at}",
            family=about.get("family", ""), task=f"{tenant}/{task}", label=about["label"], score=float(score),
            flagged=flagged, first_finding_turn=at % 3 if flagged else None, p=p, obeyed=about.get("obeyed"),
            signal=("role_surprise", "novelty", "volume")[task % 3], events=4, slices=slices,
        )  # fmt: skip


def facts(seeds: int = 2) -> Facts:
    """Facts beside such rows."""
    systems = list(HEIGHTS)
    return Facts(
        embedder="static",
        counts=[Counted(protocol="paired", seed=seed, name="injections without a clean twin", count=3)
                for seed in range(seeds)],
        costs=[Cost(protocol=protocol, seed=seed, system=system, events=4000, seconds=1.0 + at + 0.1 * seed,
                    fit_seconds=20.0 + at, latency_p50_ms=0.4, latency_p99_ms=2.1)
               for protocol in ("paired", "stream") for seed in range(seeds) for at, system in enumerate(systems)],
        absent=[Absent(protocol="paired", seed=seed, system="minilm", reason="MiniLM is not installed.")
                for seed in range(seeds)],
        streams=[_stream(seed, system, at) for seed in range(seeds)
                 for at, system in enumerate(("tidegate", "tidegate@budget", "tidegate-novelty", "ecod"))],
    )  # fmt: skip


def _stream(seed: int, system: str, at: int) -> StreamRun:
    random = np.random.default_rng((seed, at))
    days = []
    for day in range(14):
        findings = int(random.poisson(10 + 4 * at))
        attacks = int(findings * (0.7 - 0.1 * at))
        days.append(Day(day=day, events=2800, sessions=700, findings=findings + 1, attacks=attacks, drifts=1,
                        budget=10.0 if day >= 4 and "@" in system else None))  # fmt: skip
    drifts = [DriftEvent(tenant=f"team-{number}", what=what, day=6, reported=("drift", "both", "nothing")[number],
                         after_ms=7_200_000 if number < 2 else None, sessions=40, flagged=number)
              for number, what in enumerate(("model", "prompt", "usage"))]  # fmt: skip
    firsts = [FirstFinding(family=family, turns=1 + number % 4, after_ms=60_000 * number)
              for family in ("tool loop", "stolen key") for number in range(9)]  # fmt: skip
    poisoned = [PoisonEvent(tenant="team-0", what="tokens", steps=30, steps_flagged=1, attacks=5, found=3,
                            found_unpoisoned=5)]  # fmt: skip
    return StreamRun(
        seed=seed, system=system, days=days, drifts=drifts, first_findings=firsts, poisonings=poisoned,
        false_drifts=1, tenant_days=40.0, over_budget=12,
    )  # fmt: skip
