"""What the text models cost a segment: n-grams, role surprise and the classes of known attacks; and their fits.

    python -m benchmarks.text_models

Segments are the distinct ones of the sample's training traffic; classes are fitted on a made-up label, as speed does
not depend on it. Times are CPU time of one thread, medians over repetitions.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

# One thread is what is measured; BLAS reads this when it is loaded.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from numpy.typing import NDArray

from benchmarks.cpu_time import median_us
from models.attack_classifier import CLASSES, AttackClassifier
from models.embedder import PACKAGED
from models.ngrams import Features, NGrams, token_shapes
from models.role_surprise import RoleSurprise
from models.segments import split
from models.training.attack_classifier import fit_attack_classifier
from models.training.role_surprise import fit_role_surprise
from models.training.splices import take
from models.wordpiece import TokenBags, WordPiece

SAMPLE = Path(__file__).parent.parent / "sample" / "train.jsonl.gz"
_ROLES = {"system": 0, "user": 1, "assistant": 2, "tool": 3}


def segments(path: Path) -> tuple[list[str], list[int], list[int], list[int]]:
    """Distinct texts by tenant and role, with their roles, tenants and sessions."""
    found: dict[tuple[str, int, str], int] = {}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for session, line in enumerate(lines):
            read = json.loads(line)
            for turn in read["turns"]:
                for text in split(turn.get("text") or ""):
                    found.setdefault((text, _ROLES[turn["role"]], str(read["tenant"])), session)
    names = sorted({tenant for _, _, tenant in found})
    keys = list(found)
    return (
        [text for text, _, _ in keys],
        [role for _, role, _ in keys],
        [names.index(tenant) for _, _, tenant in keys],
        list(found.values()),
    )


def made_up_labels(role: NDArray[np.int64]) -> NDArray[np.bool_]:
    """A fifth of what users say, as of every class."""
    chosen = (role == _ROLES["user"]) & (np.arange(len(role)) % 5 == 0)
    return np.repeat(chosen[:, None], len(CLASSES), axis=1)


def parts(bags: TokenBags, size: int) -> list[TokenBags]:
    """The segments, `size` at a time."""
    count = len(bags.offsets) - 1
    return [take(bags, np.arange(start, min(start + size, count))) for start in range(0, count, size)]


def hashed(grams: NGrams, batches: list[TokenBags]) -> None:
    """Features of all batches."""
    for batch in batches:
        grams.features(batch)


def surprised(model: RoleSurprise, grams: NGrams, batches: list[TokenBags]) -> None:
    """Role surprise of all batches, with the features of its windows."""
    for batch in batches:
        model.score(batch, grams)


def classified(model: AttackClassifier, features: list[Features]) -> None:
    """Classes of all batches."""
    for own in features:
        model.score(own)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=7)
    repetitions: int = parser.parse_args().repetitions

    tokens = (PACKAGED / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
    texts, roles, owners, sessions = segments(SAMPLE)
    bags = WordPiece(tokens).encode(texts)
    role, tenant, session = np.array(roles), np.array(owners), np.array(sessions)

    start = time.thread_time()
    grams = NGrams.fit(bags, tenant, token_shapes(tokens))
    surprise_arrays = fit_role_surprise(bags, role, tenant, grams, seed=1)
    between = time.thread_time()
    attack_arrays = fit_attack_classifier(bags, made_up_labels(role), tenant, session, grams, seed=1)
    print(f"{len(texts)} segments, {len(bags.ids) / len(texts):.0f} tokens each, of {len(set(owners))} tenants")
    print(f"fits: role surprise {between - start:.1f} s, five classes {time.thread_time() - between:.1f} s")
    for name, arrays in (("role surprise", surprise_arrays), ("known attacks", attack_arrays)):
        print(f"{name}: {sum(array.nbytes for array in arrays.values()) / 1e6:.1f} MB")

    surprise, attacks = RoleSurprise(surprise_arrays), AttackClassifier(attack_arrays)
    for size in (2000, 64, 16, 1):
        batches = parts(take(bags, np.arange(min(len(texts), 20_000 if size > 1 else 1000))), size)
        features = [grams.features(batch) for batch in batches]
        count = sum(len(own) for own in features)
        runs: dict[str, Callable[[], object]] = {
            "n-grams": partial(hashed, grams, batches),
            "role surprise": partial(surprised, surprise, grams, batches),
            "five classes": partial(classified, attacks, features),
        }
        taken = {name: median_us(run, count, repetitions) for name, run in runs.items()}
        cells = ", ".join(f"{name} {us:.2f}" for name, us in taken.items())
        print(f"µs a segment in batches of {size}: {cells}; together {sum(taken.values()):.2f}")


if __name__ == "__main__":
    main()
