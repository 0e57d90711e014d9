"""Texts to unit vectors by a static model: a text's vector is the sum of its tokens' vectors, made a unit vector.

Token vectors lie on a grid so coarse that every sum is exact: one text has the same bits in any batch, order of
summation, library and device. See docs/decisions/0002-exact-embedding.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from models import segments, wordpiece
from models.wordpiece import TokenBags, WordPiece

if TYPE_CHECKING:
    import torch

PACKAGED = Path(__file__).parent / "weights" / "static-minilm-256"
CHARACTERS_MAX = 4096
_TABLE, _VOCABULARY, _MANIFEST = "embedding.safetensors", "vocab.txt", "manifest.json"

Device = Literal["auto", "cpu", "cuda", "torch-cpu"]


class WeightsError(ValueError):
    """An embedder's files are missing, damaged or not exact."""


def quantise(x: NDArray[np.float32]) -> NDArray[np.int8]:
    """`x` in [-1, 1], any shape, in steps of 1/127, halves to even.

    >>> quantise(np.array([[-1.0, 0.5, 0.004, 0.003]], np.float32))
    array([[-127,   64,    1,    0]], dtype=int8)
    """
    steps: NDArray[np.int8] = np.rint(x * np.float32(127)).astype(np.int8)
    return steps


class StaticEmbedder:
    """A distilled sentence model without context: fast on a CPU, the same bits everywhere.

    Parameters
    ----------
    pieces
        The tokeniser; its ids are rows of `table`.
    table
        (V, d) float32 whole numbers, such that sums of `pieces.tokens_max` rows stay within 24 bits and their squared
        norms within 53.
    space_id
        Names everything a vector depends on; vectors of two spaces must not be compared.
    device
        `cpu` pools with numpy; `cuda` with torch on the GPU; `torch-cpu` with torch on the CPU; `auto` takes the GPU if
        there is one. All give the same bits.

    Examples
    --------
    >>> embedder = StaticEmbedder.load()
    >>> x = embedder.embed(["Book a flight to Rome.", "Reserve a plane ticket.", "The invoice is due.", ""])
    >>> x.shape, x.dtype
    ((4, 256), dtype('float32'))
    >>> x @ x[0] > 0.3
    array([ True,  True, False, False])

    References
    ----------
    Reimers and Gurevych (2019), Sentence-BERT; Tulkens and van Dongen (2024), Model2Vec.
    """

    def __init__(
        self, pieces: WordPiece, table: NDArray[np.float32], *, space_id: str, device: Device = "auto"
    ) -> None:
        _require_exact(table, pieces.tokens_max)
        self.space_id = space_id
        self.dim = int(table.shape[1])
        self.continues = pieces.continues
        self.vocabulary = pieces.vocabulary
        self._pieces = pieces
        self._pool = _pool_on(device, table)

    @classmethod
    def load(cls, path: Path | None = None, device: Device = "auto") -> StaticEmbedder:
        """The embedder in folder `path`, or the packaged one.

        Raises
        ------
        WeightsError
            Where a file is missing or differs from the manifest.
        """
        folder = PACKAGED if path is None else path
        manifest = _read_manifest(folder)
        files = {name: _read_checked(folder, name, manifest) for name in (_TABLE, _VOCABULARY)}
        # Plain arrays and a 1 ms import, where torch would take seconds.
        from safetensors.numpy import load as read_safetensors

        arrays = read_safetensors(files[_TABLE])
        table = arrays["embedding"].astype(np.float32)
        table *= np.exp2(arrays["exponent"].astype(np.float32))[:, None]
        tokens = files[_VOCABULARY].decode("utf-8").split("\n")[:-1]
        pieces = WordPiece(tokens, tokens_max=manifest.tokens_max, characters_max=CHARACTERS_MAX)
        return cls(pieces, table, space_id=_space_id(manifest, pieces), device=device)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors (n, dim) of `texts` (n,), in their order: unit rows, a zero row for a text without tokens."""
        return self._pool.embed(self._pieces.encode(texts))

    def encode(self, texts: Sequence[str]) -> TokenBags:
        """Tokens of `texts`: what is embedded, and what other models read."""
        return self._pieces.encode(texts)

    def embed_int8(self, texts: Sequence[str], bags: TokenBags | None = None) -> NDArray[np.int8]:
        """`quantise(embed(texts))`, without the float32 array in between; `bags` saves encoding them again."""
        return self._pool.embed_int8(self._pieces.encode(texts) if bags is None else bags)

    def token_counts(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Tokens (n,) that count in each text's vector."""
        return np.diff(self._pieces.encode(texts).offsets)


class _Pool(Protocol):
    """Bags of token ids to vectors."""

    def embed(self, bags: TokenBags) -> NDArray[np.float32]: ...

    def embed_int8(self, bags: TokenBags) -> NDArray[np.int8]: ...


class _NumpyPool:
    """Sums by numpy, a few texts at a time, so that what is gathered stays in the cache."""

    _texts_gathered = 16
    _texts_scaled = 256

    def __init__(self, table: NDArray[np.float32]) -> None:
        self._table = table
        self._ones = np.ones(1, np.float32)

    def embed(self, bags: TokenBags) -> NDArray[np.float32]:
        out = np.empty((len(bags.offsets) - 1, self._table.shape[1]), np.float32)
        for start in range(0, len(out), self._texts_scaled):
            part = out[start : start + self._texts_scaled]
            self._unit(bags, start, part)
        return out

    def embed_int8(self, bags: TokenBags) -> NDArray[np.int8]:
        count, dim = len(bags.offsets) - 1, self._table.shape[1]
        out = np.empty((count, dim), np.int8)
        scratch = np.empty((min(count, self._texts_scaled), dim), np.float32)
        for start in range(0, count, self._texts_scaled):
            part = out[start : start + self._texts_scaled]
            unit = scratch[: len(part)]
            self._unit(bags, start, unit)
            unit *= np.float32(127)
            np.rint(unit, out=unit)
            np.copyto(part, unit, casting="unsafe")
        return out

    def _unit(self, bags: TokenBags, start: int, out: NDArray[np.float32]) -> None:
        """Unit vectors of the texts from `start` on into `out` (m, d)."""
        self._sums(bags, start, out)
        sums = out.astype(np.float64)
        norms = np.sqrt(np.einsum("ij,ij->i", sums, sums))
        norms[norms == 0.0] = 1.0
        sums /= norms[:, None]
        np.copyto(out, sums, casting="unsafe")

    def _sums(self, bags: TokenBags, start: int, out: NDArray[np.float32]) -> None:
        """Sums of token vectors of the texts from `start` on into `out` (m, d)."""
        offsets: list[int] = bags.offsets[start : start + len(out) + 1].tolist()
        longest = max(map(int.__sub__, offsets[1:], offsets), default=0)
        if len(self._ones) < longest:
            self._ones = np.ones(longest, np.float32)
        ones = self._ones
        for first in range(0, len(out), self._texts_gathered):
            last = min(len(out), first + self._texts_gathered)
            base = offsets[first]
            rows = self._table.take(bags.ids[base : offsets[last]], axis=0, mode="clip")
            begin = 0
            for text in range(first, last):
                end = offsets[text + 1] - base
                # A product with ones is BLAS's fastest sum, and no less exact.
                np.dot(ones[: end - begin], rows[begin:end], out[text])
                begin = end


class _TorchPool:
    """Sums by torch's EmbeddingBag, on a GPU or on the CPU."""

    _texts_scaled = 16_384

    def __init__(self, table: NDArray[np.float32], device: str) -> None:
        import torch

        self._torch = torch
        self._device = torch.device(device)
        self._table = torch.from_numpy(table).to(self._device)

    def embed(self, bags: TokenBags) -> NDArray[np.float32]:
        out = np.empty((len(bags.offsets) - 1, self._table.shape[1]), np.float32)
        for start in range(0, len(out), self._texts_scaled):
            unit = self._unit(bags, start)
            out[start : start + len(unit)] = unit.cpu().numpy()
        return out

    def embed_int8(self, bags: TokenBags) -> NDArray[np.int8]:
        out = np.empty((len(bags.offsets) - 1, self._table.shape[1]), np.int8)
        for start in range(0, len(out), self._texts_scaled):
            unit = self._unit(bags, start)
            out[start : start + len(unit)] = (unit * 127).round_().to(self._torch.int8).cpu().numpy()
        return out

    def _unit(self, bags: TokenBags, start: int) -> torch.Tensor:
        """Unit vectors (m, d) of the texts from `start` on."""
        offsets = bags.offsets[start : start + self._texts_scaled + 1]
        ids = self._put(bags.ids[offsets[0] : offsets[-1]].astype(np.int64))
        sums = self._torch.nn.functional.embedding_bag(
            ids, self._table, self._put(offsets - offsets[0]), mode="sum", include_last_offset=True
        ).double()
        norms = (sums * sums).sum(dim=1, keepdim=True).sqrt_()
        norms[norms == 0.0] = 1.0
        return (sums / norms).float()

    def _put(self, array: NDArray[np.int64]) -> torch.Tensor:
        tensor = self._torch.from_numpy(array)
        if self._device.type == "cuda":
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor


def _pool_on(device: Device, table: NDArray[np.float32]) -> _Pool:
    if device == "auto":
        device = "cuda" if _cuda_available() else "cpu"
    if device == "cpu":
        return _NumpyPool(table)
    if device == "torch-cpu":
        return _TorchPool(table, "cpu")
    if device == "cuda":
        if not _cuda_available():
            raise WeightsError(
                "embedder device cuda needs an NVIDIA GPU that torch can use; none found. Use auto or cpu."
            )
        return _TorchPool(table, "cuda")
    raise WeightsError(f"an embedder's device must be auto, cpu, cuda or torch-cpu; got {device!r}.")


def _cuda_available() -> bool:
    """Whether torch can use a GPU; asks torch, a slow import, only where the driver is."""
    if not (Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()):
        return False
    import torch

    return torch.cuda.is_available()


@dataclass(frozen=True, slots=True)
class _Manifest:
    """What a folder says of itself."""

    name: str
    tokens_max: int
    files: dict[str, str]
    """sha256 by file name."""


def _read_manifest(folder: Path) -> _Manifest:
    path = folder / _MANIFEST
    try:
        read = json.loads(path.read_bytes())
        hashes = {name: str(read["files"][name]["sha256"]) for name in (_TABLE, _VOCABULARY)}
        return _Manifest(str(read["name"]), int(read["tokens_max"]), hashes)
    except OSError as error:
        raise WeightsError(
            f"{path}: an embedder's folder must hold {_MANIFEST}, {_TABLE} and {_VOCABULARY}; {error.strerror}. "
            "Reinstall tidegate, or make the folder with models/weights/distil.py."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{path}: must be a JSON object with name, tokens_max and files.<file>.sha256; got {error!r}. "
            "Reinstall tidegate, or make the folder with models/weights/distil.py."
        ) from error


def _read_checked(folder: Path, name: str, manifest: _Manifest) -> bytes:
    """The file's bytes, only if they are those of the manifest."""
    path, required = folder / name, manifest.files[name]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read, {error.strerror}. Reinstall tidegate.") from error
    found = hashlib.sha256(data).hexdigest()
    if found != required:
        raise WeightsError(
            f"{path}: sha256 must be {required} as {_MANIFEST} says; got {found}. The file is damaged or replaced: "
            "reinstall tidegate, or make the folder again with models/weights/distil.py."
        )
    return data


def _require_exact(table: NDArray[np.float32], tokens_max: int) -> None:
    """Refuse a table whose sums could round: results would then depend on the batch."""
    whole = bool((table == np.rint(table)).all())
    largest = tokens_max * float(np.abs(table).max(initial=0.0))
    norm = tokens_max * float(np.sqrt(np.einsum("ij,ij->i", table, table, dtype=np.float64).max(initial=0.0)))
    if not whole or largest > 2**24 or norm * norm > 2**53:
        raise WeightsError(
            f"an embedder's table must hold whole numbers whose sums over {tokens_max} tokens stay within 2**24, and "
            f"their squared norms within 2**53; got {largest:.0f} and {norm * norm:.0f}. "
            "Make it with models/weights/distil.py."
        )


def _space_id(manifest: _Manifest, pieces: WordPiece) -> str:
    parts = {
        "files": manifest.files,
        "pooling": "unit-sum",
        "tokens_max": pieces.tokens_max,
        "characters_max": pieces.characters_max,
        "wordpiece": wordpiece.VERSION,
        "segments": segments.VERSION,
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return f"{manifest.name}-{digest[:16]}"
