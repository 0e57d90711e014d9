"""What a new segment costs: split, tokenise, pool and quantise, in batches, cache cold and warm.

    python -m benchmarks.embedder

Texts are the distinct messages of the sample traffic in the order they come. Times are CPU time of one thread, medians
over repetitions.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.cpu_time import median_us
from models.embedder import StaticEmbedder
from models.segments import split

SAMPLE = Path(__file__).parent.parent / "sample" / "train.jsonl.gz"


def messages(path: Path) -> Iterator[str]:
    """Distinct texts of a sample file's turns."""
    seen: set[str] = set()
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            for turn in json.loads(line)["turns"]:
                text = turn.get("text") or ""
                if text and text not in seen:
                    seen.add(text)
                    yield text


def in_batches(embedder: StaticEmbedder, segments: list[str], size: int) -> None:
    """Embed all segments, `size` at a time."""
    for start in range(0, len(segments), size):
        embedder.embed_int8(segments[start : start + size])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, default=20_000, help="distinct segments to embed (20000)")
    parser.add_argument("--repetitions", type=int, default=7)
    arguments = parser.parse_args()
    repetitions: int = arguments.repetitions

    texts = list(messages(SAMPLE))
    pieces = [split(text) for text in texts]
    segments = list(dict.fromkeys(segment for found in pieces for segment in found))[: arguments.segments]
    characters = sum(map(len, texts))
    print(f"{len(texts)} messages, {characters / len(texts):.0f} characters each; {len(segments)} distinct segments,")
    print(f"{statistics.mean(map(len, segments)):.0f} characters each\n")

    start = time.perf_counter()
    embedder = StaticEmbedder.load(device="cpu")
    print(f"load                        {1e3 * (time.perf_counter() - start):8.1f} ms")
    splitting = median_us(lambda: [split(text) for text in texts], characters, repetitions) * 1e3
    print(f"split, per 1,000 characters {splitting:8.1f} µs")

    colds = []
    for _ in range(repetitions):
        fresh = StaticEmbedder.load(device="cpu")
        colds.append(median_us(partial(in_batches, fresh, segments, 2000), len(segments), 1))
    print(f"embed_int8, cache cold      {statistics.median(colds):8.2f} µs a segment, batches of 2000")
    embedder.embed_int8(segments)
    for size in (2000, 16, 1):
        cost = median_us(partial(in_batches, embedder, segments, size), len(segments), repetitions)
        print(f"embed_int8, cache warm      {cost:8.2f} µs a segment, batches of {size}")
    tokenise = median_us(lambda: embedder.token_counts(segments), len(segments), repetitions)
    print(f"  of which tokenising       {tokenise:8.2f} µs, {embedder.token_counts(segments).mean():.0f} tokens")


if __name__ == "__main__":
    main()
