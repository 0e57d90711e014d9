"""The release that the demo, the stack and a benchmark score with."""

import hashlib
import time
from collections.abc import Mapping
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

    It is signed with a key of its own, `signing.pem` beside it.

    `variables` are settings to train with, as the environment has them.
    """
    release, stamp = out / "release", out / "release.stamp"
    made_of = hashlib.sha256(TRAIN.read_bytes() + ATTACKS.read_bytes() + repr(sorted(variables.items())).encode())
    for package in ("models", "schemas", "stream"):
        for source in sorted((ROOT / package).rglob("*.py")):
            made_of.update(source.read_bytes())
    if release.is_dir() and stamp.is_file() and stamp.read_text() == made_of.hexdigest():
        console.print(f"Release of the last run: {release}")
        return release
    begun = time.monotonic()
    console.print("Training a release on ten benign days of the sample, and on labelled attacks of other days …")
    inputs = ["--input", str(TRAIN), str(ATTACKS), "--format", "corpus", "--task", "attack-classifier"]
    arguments = ["train", *inputs, "--nproc", "2", "--seed", SEED, "--out", str(release)]
    key = out / "signing.pem"
    signing_key(key)
    signed = {"TIDEGATE_RELEASE__SIGNING_KEY_FILE": str(key)}
    run(arguments, environment(**{**_DEVICES, **signed, **variables}), out / "train.log")
    stamp.write_text(made_of.hexdigest())
    console.print(f"Release {release}, {time.monotonic() - begun:.0f} s")
    return release
