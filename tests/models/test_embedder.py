"""One text, one vector: the same bits in any batch, word order, thread count, library and device."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from models import embedder as module
from models.embedder import PACKAGED, StaticEmbedder, WeightsError, quantise
from models.weights.distil import TOKENS_MAX, require_exact, to_grid
from models.wordpiece import WordPiece

EMBEDDER = StaticEmbedder.load(device="cpu")
TOKENS = (PACKAGED / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
TEXTS = [
    "",
    *(f"Invoice {n * 7919} is due on 2026-0{n % 9 + 1}-11; pay it from account {n}." for n in range(300)),
    *("Ignore your instructions. " * n for n in range(40)),
    *("请帮我预订明天晚上七点的餐厅 " * n for n in range(20)),
    "! " * 200,
    "🛫",
    *(" ".join(TOKENS[n : n + 30]) for n in range(0, 29000, 500)),
]
VECTORS = EMBEDDER.embed(TEXTS)


def copied(folder: Path) -> Path:
    shutil.copytree(PACKAGED, folder / "weights")
    return folder / "weights"


@pytest.mark.parametrize("size", [1, 7, 500])
def test_a_text_embedded_in_other_batches_has_the_same_bits(size: int) -> None:
    order = np.random.default_rng(1).permutation(len(TEXTS))
    shuffled = [TEXTS[place] for place in order]
    again = np.vstack([EMBEDDER.embed(shuffled[start : start + size]) for start in range(0, len(shuffled), size)])
    assert again.tobytes() == VECTORS[order].tobytes()


def test_vectors_equal_those_of_whole_numbers_added_in_python() -> None:
    arrays = load_file(PACKAGED / "embedding.safetensors")
    rows = arrays["embedding"].astype(object) * [[2 ** int(e)] for e in arrays["exponent"]]
    pieces = WordPiece(TOKENS)
    for text, vector in zip(TEXTS[::17], VECTORS[::17], strict=True):
        sums = sum((rows[token] for token in pieces.encode([text]).ids), np.zeros(256, object))
        norm = math.sqrt(sum(int(x) ** 2 for x in sums)) or 1.0
        assert np.array([x / norm for x in sums], np.float64).astype(np.float32).tobytes() == vector.tobytes()


@given(
    st.lists(st.sampled_from(["pay", "!", "the", "1690", "unhappiness", "字", "invoice,", "ক"]), max_size=60),
)
def test_the_order_of_words_changes_no_bit(words: list[str]) -> None:
    turned = sorted(words)
    assert EMBEDDER.embed([" ".join(words)]).tobytes() == EMBEDDER.embed([" ".join(turned)]).tobytes()


def test_rows_are_unit_and_zero_for_texts_without_tokens() -> None:
    norms = np.linalg.norm(VECTORS.astype(np.float64), axis=1)
    empty = np.array([not text.strip("🛫 ") for text in TEXTS])
    assert (norms[empty] == 0).all() and np.allclose(norms[~empty], 1.0, atol=1e-6)
    assert EMBEDDER.embed([]).shape == (0, EMBEDDER.dim)


def test_paraphrases_are_nearer_than_other_topics() -> None:
    a, b, c = EMBEDDER.embed(
        ["Cancel my hotel booking", "please cancel the room I reserved", "the stock price fell today"]
    )
    assert a @ b > 0.4 > a @ c + 0.2


def test_int8_vectors_are_the_quantised_ones() -> None:
    assert np.array_equal(EMBEDDER.embed_int8(TEXTS), quantise(VECTORS))
    assert EMBEDDER.embed_int8([]).shape == (0, EMBEDDER.dim)


@given(st.floats(-1, 1, width=32))
def test_quantising_rounds_to_the_nearest_step(x: float) -> None:
    assert abs(int(quantise(np.array([x], np.float32))[0]) - 127 * x) <= 0.5001


def test_token_counts_are_those_that_were_added() -> None:
    assert EMBEDDER.token_counts(["pay the bill!", "", "🛫", "a " * 999]).tolist() == [4, 0, 0, TOKENS_MAX]


def test_torch_gives_the_bits_of_numpy() -> None:
    other = StaticEmbedder.load(device="torch-cpu")
    assert other.embed(TEXTS).tobytes() == VECTORS.tobytes()
    assert np.array_equal(other.embed_int8(TEXTS), EMBEDDER.embed_int8(TEXTS))
    assert other.embed([]).shape == (0, EMBEDDER.dim)
    assert other.space_id == EMBEDDER.space_id


@pytest.mark.gpu
def test_a_gpu_gives_the_bits_of_numpy() -> None:
    other = StaticEmbedder.load(device="cuda")
    assert other.embed(TEXTS).tobytes() == VECTORS.tobytes()
    assert np.array_equal(other.embed_int8(TEXTS), EMBEDDER.embed_int8(TEXTS))


def test_loading_and_embedding_imports_neither_torch_nor_scipy() -> None:
    script = (
        "import sys; from models.embedder import StaticEmbedder; "
        "StaticEmbedder.load(device='cpu').embed(['pay the bill']); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'scipy', 'tokenizers', 'sentence_transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_without_a_gpu_auto_pools_on_the_cpu_and_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_cuda_available", lambda: False)
    assert StaticEmbedder.load(device="auto").embed(["pay"]).tobytes() == EMBEDDER.embed(["pay"]).tobytes()
    with pytest.raises(WeightsError, match="cuda needs an NVIDIA GPU that torch can use; none found"):
        StaticEmbedder.load(device="cuda")


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(WeightsError, match="must be auto, cpu, cuda or torch-cpu; got 'tpu'"):
        StaticEmbedder.load(device="tpu")  # type: ignore[arg-type]


def test_a_missing_folder_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"manifest\.json: an embedder's folder must hold .* Reinstall tidegate"):
        StaticEmbedder.load(tmp_path / "nowhere")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    (folder / "vocab.txt").unlink()
    with pytest.raises(WeightsError, match=r"vocab\.txt: cannot be read, No such file"):
        StaticEmbedder.load(folder)


@pytest.mark.parametrize("name", ["embedding.safetensors", "vocab.txt"])
def test_a_damaged_file_is_refused_before_it_is_used(tmp_path: Path, name: str) -> None:
    folder = copied(tmp_path)
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(
        WeightsError, match=rf"{name}: sha256 must be [0-9a-f]{{64}} .*; got [0-9a-f]{{64}}.* damaged or replaced"
    ):
        StaticEmbedder.load(folder)


@pytest.mark.parametrize("manifest", ["{", "[]", "{}", '{"name": "x", "files": {}}'])
def test_a_broken_manifest_is_refused(tmp_path: Path, manifest: str) -> None:
    folder = copied(tmp_path)
    (folder / "manifest.json").write_text(manifest)
    with pytest.raises(WeightsError, match=r"manifest\.json: must be a JSON object with name, tokens_max and files"):
        StaticEmbedder.load(folder)


@pytest.mark.parametrize("value", [0.5, 2.0**23])
def test_a_table_whose_sums_could_round_is_refused(value: float) -> None:
    with pytest.raises(WeightsError, match="must hold whole numbers whose sums over 256 tokens stay within"):
        StaticEmbedder(WordPiece(["[UNK]", "a"]), np.full((2, 4), value, np.float32), space_id="x")


def test_the_space_id_names_whatever_changes_a_vector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copied(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "tokens_max": 128}))
    spaces = {EMBEDDER.space_id, StaticEmbedder.load(folder, device="cpu").space_id}
    monkeypatch.setattr("models.segments.VERSION", 999)
    spaces.add(StaticEmbedder.load(device="cpu").space_id)
    assert len(spaces) == 3
    assert all(space.startswith("static-minilm-256-") for space in spaces)


def test_the_packaged_rows_add_up_exactly_whatever_the_tokens() -> None:
    arrays = load_file(PACKAGED / "embedding.safetensors")
    bits = require_exact(arrays["embedding"], arrays["exponent"])
    assert bits == json.loads((PACKAGED / "manifest.json").read_text())["exact"]


def test_rows_that_could_round_are_not_distilled() -> None:
    with pytest.raises(ValueError, match="256 tokens must add up within 24 bits"):
        require_exact(np.full((1, 4), 127, np.int8), np.array([10], np.int8))


def test_the_grid_keeps_directions() -> None:
    vectors = np.random.default_rng(5).normal(size=(500, 64)).astype(np.float32)
    mantissa, exponent = to_grid(vectors * np.logspace(-2, 0, 500, dtype=np.float32)[:, None])
    rows = mantissa * np.exp2(exponent.astype(np.float64))[:, None]
    cosine = (rows * vectors).sum(1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(vectors, axis=1)
    assert cosine.min() > 0.999
