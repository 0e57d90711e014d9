"""One decoder against Atheris, which looks for inputs that reach code which none reached before.

A process of its own: what is imported before Atheris is not watched by it, and libFuzzer never returns.
"""

from __future__ import annotations

import argparse
import os
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import NoReturn

import atheris

with atheris.instrument_imports(include=["schemas", "stream"]):
    from tests.fuzz.engines import BYTES_MAX, Tally, memory_mb, tried
    from tests.fuzz.mutate import Mutator
    from tests.fuzz.targets import TARGETS

SECONDS_MAX = 60
"""For one input, of the clock: a busy machine must not look like a slow decoder."""
MEMORY_MB_MAX = 2_048
_SAVED_AT_ONCE = 200


def fuzz(name: str, inputs: int, seed: int, folder: Path) -> NoReturn:
    """Feed the decoder `name`; the process ends when it has had its inputs.

    Parameters
    ----------
    folder
        Where `tally.json` goes, the corpus, and inputs that failed or took too long.
    """
    target = TARGETS[name]()
    mutator = Mutator(target.seeds, is_json=target.is_json)
    tally = Tally()

    def one(data: bytes) -> None:
        tried(target, bytes(data), tally, folder / "failures")
        if tally.inputs % _SAVED_AT_ONCE == 0 or tally.inputs >= inputs:
            tally.memory_mb = memory_mb()
            tally.save(folder / "tally.json")
            if tally.inputs >= inputs:
                os._exit(0)

    def mutate(data: bytes, size_max: int, number: int) -> bytes:
        # libFuzzer's own changes know what the code compared inputs with; ours know JSON.
        if number % 4 == 0:
            return bytes(atheris.Mutate(data, size_max))
        return mutator.mutate(bytes(data), size_max, Random(number))

    corpus = folder / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for data in target.seeds:
        (corpus / sha256(data).hexdigest()[:16]).write_bytes(data)
    (folder / "failures").mkdir(exist_ok=True)
    flags = [
        f"-seed={seed}", f"-max_len={BYTES_MAX}", "-len_control=0", f"-timeout={SECONDS_MAX}",
        f"-rss_limit_mb={MEMORY_MB_MAX}", f"-artifact_prefix={folder}/failures/{name}-", "-verbosity=0", str(corpus),
    ]  # fmt: skip
    atheris.Setup(["fuzz", *flags], one, custom_mutator=mutate)
    atheris.Fuzz()
    raise AssertionError("libFuzzer came back")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.guided", description=__doc__)
    parser.add_argument("name", choices=list(TARGETS))
    parser.add_argument("--inputs", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    fuzz(given.name, given.inputs, given.seed, given.out)
