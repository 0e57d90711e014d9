"""Fine-tune the packaged token tagger anew: `python -m scripts.tune_tagger` (half an hour on one core).

It writes `models/weights/token-tagger/tagger.safetensors` and says the hash that `models/token_tagger.py` must name.
Two taggers are fine-tuned, one of which reads messages to chat models too, and their weights averaged. Two machines may
come to weights that differ a little (the floating-point sums of training), so the file is committed with its hash; what
is computed from it is the same everywhere. See docs/decisions/0044-token-tagger.md.
"""

from __future__ import annotations

import sys
import time
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save

from models.minilm import checked_weights
from models.token_tagger import PACKAGED
from models.training.token_tagger import Fit, averaged, fit_token_tagger
from stream.config import Settings
from stream.runtime.embedders import load_embedder
from stream.training.tagger_lessons import CHATS, tagger_lessons

SEED = 1
_TOLD_EVERY = 100


def main() -> int:
    """Learn, and replace the packaged file."""
    torch.set_num_threads(1)
    settings, begun, how = Settings(), time.monotonic(), Fit()
    embedder = load_embedder(settings.embedder)

    def fitted(chats: float) -> dict[str, Any]:
        sides = tagger_lessons(embedder, settings.redaction.policy, seed=SEED, chats=chats)
        print(f"{int((sides.user > 0).sum()):,} segments of users, {int((sides.tool > 0).sum()):,} of tools")
        return fit_token_tagger(sides, embedder.vocabulary, checked_weights(), seed=SEED, how=how, progress=progress)

    def progress(step: int, loss: float) -> None:
        if step % _TOLD_EVERY == 0:
            took = time.monotonic() - begun
            print(f"{took:6.0f} s  step {step:,} of {how.steps:,}, loss {loss:.3f}", file=sys.stderr, flush=True)

    arrays = averaged(*(fitted(chats) for chats in CHATS))
    body = save({name: np.asarray(arrays[name], order="C") for name in sorted(arrays)})
    PACKAGED.write_bytes(body)
    print(f"{PACKAGED.name}: {len(body):,} bytes; SHA256 in models/token_tagger.py must be {sha256(body).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
