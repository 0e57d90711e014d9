"""The releases that demos, the stack and benchmarks score with."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from rich.console import Console

from sample.records import ATTACKS, TRAIN
from tidegate.demo.process import environment, run
from tidegate.keys import signing_key

ROOT = Path(__file__).resolve().parents[2]
SEED = "7"
_DEVICES = {"TIDEGATE_EMBEDDER__DEVICE": "cpu", "TIDEGATE_TRANSFORMER__DEVICE": "cpu"}
"""Two processes cannot share a CUDA device."""


def sample_release(console: Console, out: Path, variables: Mapping[str, str] = MappingProxyType({})) -> Path:
    """A release trained on the sample's benign days and labelled attacks; the last run's if nothing has changed.

    It is signed with a key of its own, `signing.pem` beside it. `variables` are settings to train with, as the
    environment has them.
    """
    what = "Training a release on ten benign days of the sample, and on labelled attacks of other days …"
    return trained_release(console, out, what, [TRAIN, ATTACKS], variables, ["--task", "attack-classifier"])


def trained_release(
    console: Console,
    out: Path,
    what: str,
    inputs: Sequence[Path],
    variables: Mapping[str, str] = MappingProxyType({}),
    flags: Sequence[str] = (),
) -> Path:
    """A release in `out` trained on corpus files; the last run's if neither they nor the code have changed."""
    release, stamp = out / "release", out / "release.stamp"
    made_of = hashlib.sha256(repr((sorted(variables.items()), list(flags))).encode())
    for path in inputs:
        made_of.update(path.read_bytes())
    for package in ("models", "schemas", "stream"):
        for source in sorted(path for kind in ("*.py", "*.toml") for path in (ROOT / package).rglob(kind)):
            made_of.update(source.read_bytes())
    if release.is_dir() and stamp.is_file() and stamp.read_text() == made_of.hexdigest():
        console.print(f"Release of the last run: {release}")
        return release
    begun = time.monotonic()
    console.print(what)
    key = out / "signing.pem"
    signing_key(key)
    signed = {"TIDEGATE_RELEASE__SIGNING_KEY_FILE": str(key)}
    named = ["--input", *map(str, inputs), "--format", "corpus", *flags]
    arguments = ["train", *named, "--nproc", "2", "--seed", SEED, "--out", str(release)]
    run(arguments, environment(**{**_DEVICES, **signed, **variables}), out / "train.log")
    stamp.write_text(made_of.hexdigest())
    console.print(f"Release {release}, {time.monotonic() - begun:.0f} s")
    return release
