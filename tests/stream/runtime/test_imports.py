"""What a restart does not wait for."""

import subprocess
import sys
from pathlib import Path

import pytest

SLOW = {"torch", "sentence_transformers", "faust", "mlflow", "river.drift", "pandas", "sklearn"}


SCORE = """
import stream.runtime.services, stream.runtime.score_command, stream.core, stream.runtime.release_store
from stream.config import EmbedderSettings
from stream.runtime.embedders import load_embedder
load_embedder(EmbedderSettings()).embed_int8(["hello"])
"""
INGEST = """
import stream.runtime.services, stream.runtime.ingest_command, stream.steps.ingest
"""


@pytest.mark.parametrize("code", [SCORE, INGEST], ids=["score", "ingest"])
def test_a_service_imports_nothing_slow(code: str) -> None:
    script = f"{code}\nimport sys\nprint(sorted(sys.modules.keys() & {SLOW!r}))"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
