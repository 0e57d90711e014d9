"""`make bench`: every benchmark, one after another, on a release trained from the sample."""

import subprocess
import sys
from pathlib import Path

import orjson
from rich.console import Console

from tidegate.demo.release import sample_release

OUT = Path("out/bench")
RELEASE = OUT / "release"
BENCHMARKS = {
    "embedder": [],
    "bank": [],
    "score": ["--release", str(RELEASE), "--out", str(OUT / "score.json")],
    "signal_sets": ["--out", str(OUT / "signal_sets.json")],
    "end_to_end": ["--release", str(RELEASE), "--out", str(OUT / "end_to_end")],
    "latency": ["--release", str(RELEASE), "--out", str(OUT / "latency")],
    "restore": ["--release", str(RELEASE), "--out", str(OUT / "restore.json")],
}


def main() -> int:
    """Run them all; the worst of their exit codes."""
    OUT.mkdir(parents=True, exist_ok=True)
    sample_release(Console(), OUT)
    codes = []
    for name, arguments in BENCHMARKS.items():
        print(f"\n== {name}", flush=True)
        codes.append(subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], check=False).returncode)
    summary = {
        "score": orjson.loads((OUT / "score.json").read_bytes()),
        "signal_sets": orjson.loads((OUT / "signal_sets.json").read_bytes()),
        "end_to_end": orjson.loads((OUT / "end_to_end" / "summary.json").read_bytes()),
        "latency": orjson.loads((OUT / "latency" / "summary.json").read_bytes()),
        "restore": orjson.loads((OUT / "restore.json").read_bytes()),
    }
    (OUT / "summary.json").write_bytes(orjson.dumps(summary, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
