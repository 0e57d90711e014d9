"""What the product detects on the sample, and what was recorded of it.

`python -m tests.evaluation.quality.measured` compares with what is recorded, and ends with exit code 4 where that is
worse; `--record` keeps what is measured.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, stdev

from evaluation.corpus import Corpus, read_corpus
from evaluation.events import Events, events_of
from evaluation.protocols.hard_negatives import hard_negatives
from evaluation.protocols.paired import paired
from evaluation.protocols.session import session
from evaluation.report.columns import Rows
from evaluation.report.compute import compute
from evaluation.report.facts import Facts
from evaluation.report.model import Figure, Report, SystemReport
from evaluation.row import Row
from evaluation.seed_run import rows_of
from evaluation.split import Split, split
from evaluation.systems.product import Product, Tidegate
from evaluation.trial import Trial
from schemas.corpus import CorpusSession
from stream.config import Settings
from stream.runtime.embedders import load_embedder, load_tagger
from stream.runtime.train_command import EFFORT

SAMPLE = Path(__file__).parents[3] / "sample"
RECORDED = Path(__file__).with_name("recorded.json")
SEEDS = (0, 1)
"""Of splits."""
FITS = 5
"""Trainings on each split that are recorded: the sessions are the same ones every time, and chance is in the fit."""
NOISE_SIGMAS, NOISE_MIN = 3.0, 0.01
Values = dict[str, float]
Recorded = dict[str, dict[str, float]]
"""Name -> `value`, the mean over trainings, and `noise`, `NOISE_SIGMAS` standard deviations of them."""
HIGHER_IS_WORSE = ("false_positives", "look_alikes")
"""Figures whose names begin so; of all others less is worse."""


def measured(fit: int = 0) -> Values:
    """The figures of this version, trained with seed `fit`; splits side by side, where there are processors."""
    at_once = min(len(SEEDS), len(os.sched_getaffinity(0)))
    with ProcessPoolExecutor(at_once, get_context("spawn")) as pool:
        rows = [row for own in pool.map(partial(_judged, fit=fit), SEEDS) for row in own]
    return dict(_figures(compute(Rows.of(rows), Facts(nominal=Settings().decision.session_fpr), {})))


def recorded(fits: Sequence[Values]) -> Recorded:
    """What is kept of several trainings: nothing of figures that could fall to 0 by chance.

    >>> recorded([{"paired all auroc": 0.8}, {"paired all auroc": 0.9}])
    {'paired all auroc': {'value': 0.85, 'noise': 0.2121}}
    """
    kept: Recorded = {}
    for name in fits[0]:
        values = [each[name] for each in fits]
        value, noise = fmean(values), max(NOISE_MIN, NOISE_SIGMAS * stdev(values))
        if name.startswith(HIGHER_IS_WORSE) or noise < value:
            kept[name] = {"value": round(value, 4), "noise": round(noise, 4)}
    return kept


def worse(now: Values, kept: Recorded) -> list[str]:
    """Sentences about figures that are worse than recorded by more than the noise, and about missing ones.

    >>> kept = {"paired auroc": {"value": 0.9, "noise": 0.04}, "false_positives": {"value": 0.02, "noise": 0.03}}
    >>> worse({"paired auroc": 0.87, "false_positives": 0.06}, kept)
    ['false_positives is 0.06; recorded is 0.02, and its noise 0.03']
    """
    said = []
    for name, was in kept.items():
        if name not in now:
            said.append(f"{name} is not measured any more; recorded is {was['value']}")
            continue
        lost = was["value"] - now[name]
        if name.startswith(HIGHER_IS_WORSE):
            lost = -lost
        # Rounded figures: a difference of exactly the noise is none.
        if lost > was["noise"] + 1e-9:
            said.append(f"{name} is {now[name]}; recorded is {was['value']}, and its noise {was['noise']}")
    return said


def _judged(seed: int, fit: int) -> list[Row]:
    settings = Settings()
    corpus = read_corpus(SAMPLE)
    embedder = load_embedder(settings.embedder)
    tagger = load_tagger(settings, embedder.vocabulary)
    system = Tidegate("tidegate", Product(settings, embedder, effort=EFFORT, tagger=tagger))
    rows: list[Row] = []
    learned: tuple[Sequence[CorpusSession], Events] | None = None
    for trial in _trials(corpus, split(corpus, seed)):
        # Equal sessions are one object: what was learned once is not learned again.
        if learned is None or learned[0] is not trial.learn:
            learned = trial.learn, events_of(trial.learn, settings)
        system.fit(learned[1], fit)
        probes = events_of([probe.session for probe in trial.probes], settings)
        rows += rows_of(trial, probes, system.judge(probes), system.name, settings.decision.session_fpr)
    return rows


def _trials(corpus: Corpus, halves: Split) -> Iterator[Trial]:
    for made in (paired(corpus, halves), session(corpus, halves), hard_negatives(corpus, halves, seen=False)):
        assert isinstance(made, Trial), made
        yield made


def _figures(report: Report) -> Iterator[tuple[str, float]]:
    for name in ("paired", "session"):
        own = report.protocols[name].systems["tidegate"]
        yield from _named(f"false_positives {name}", own.false_positives)
        for group in own.groups:
            if group.kind in ("all", "rewrite", "obeyed"):
                if group.kind != "rewrite":
                    # At the operating point: a threshold that moves shows in nothing else.
                    yield from _named(f"{name} {group.name} recall", group.recall)
                yield from _named(f"{name} {group.name} auroc", group.auroc)
                yield from _named(f"{name} {group.name} recall_at_5", group.recall_at_5)
            if (name, group.kind) == ("paired", "all"):
                yield from _named("paired marked", group.marked)
    yield from _look_alikes(report.protocols["hard_negatives"].systems["tidegate"])


def _look_alikes(own: SystemReport) -> Iterator[tuple[str, float]]:
    for each in own.harmless:
        if (each.label, each.name) == ("benign", "all"):
            yield from _named("look_alikes at_5", each.at_5)


def _named(name: str, figure: Figure) -> Iterator[tuple[str, float]]:
    if figure.value is not None:
        yield name, round(figure.value, 4)


def main(arguments: Sequence[str]) -> int:
    """Compare, or with `--record` keep, what is measured."""
    if list(arguments) not in ([], ["--record"]):
        print(__doc__, file=sys.stderr)
        return 2
    if arguments:
        fits = []
        for number in range(FITS):
            print(f"training {number + 1} of {FITS}", file=sys.stderr, flush=True)
            fits.append(measured(number))
        kept = recorded(fits)
        for name, each in kept.items():
            print(f"{name:32} {each['value']:.4f} ± {each['noise']:.4f}")
        RECORDED.write_text(json.dumps(kept, indent=1) + "\n")
        return 0
    now = measured()
    for name, value in now.items():
        print(f"{name:32} {value:.4f}")
    said = worse(now, json.loads(RECORDED.read_text()))
    print("\n".join(said) or "no figure is worse than recorded, beyond its noise")
    return 4 if said else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
