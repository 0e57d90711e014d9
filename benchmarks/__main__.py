"""`make bench`: every benchmark, one after another, on a release trained from the sample."""

import subprocess
import sys
from pathlib import Path

import orjson

from sample.records import TRAIN
from tidegate.demo.process import environment, run

OUT = Path("out/bench")
RELEASE = OUT / "release"
BENCHMARKS = {
    "embedder": [],
    "bank": [],
    "score": ["--release", str(RELEASE), "--out", str(OUT / "score.json")],
    "end_to_end": ["--release", str(RELEASE), "--out", str(OUT / "end_to_end")],
}


def main() -> int:
    """Run them all; the worst of their exit codes."""
    OUT.mkdir(parents=True, exist_ok=True)
    print("training a release on the sample …", flush=True)
    train = ["train", "--input", str(TRAIN), "--format", "corpus", "--seed", "7", "--out", str(RELEASE)]
    run(train, environment(), OUT / "train.log")
    codes = []
    for name, arguments in BENCHMARKS.items():
        print(f"\n== {name}", flush=True)
        codes.append(subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], check=False).returncode)
    summary = {
        "score": orjson.loads((OUT / "score.json").read_bytes()),
        "end_to_end": orjson.loads((OUT / "end_to_end" / "summary.json").read_bytes()),
    }
    (OUT / "summary.json").write_bytes(orjson.dumps(summary, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
