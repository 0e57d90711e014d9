"""Who speaks, token by token: three layers of a transformer in whole numbers.

N-grams judge words by themselves, so a letter that says "I don't need a place to stay" sounds to them like a user who
asks for one. A transformer reads words in their sentence. This one is computed in whole numbers: products are of codes
of eight bits (of sixteen for shares of attention), whose sums float32 holds without rounding in whatever order they are
added (of the widest product those of either half), and what lies between is rounded correctly by IEEE 754 or looked up
in a table. So one text has the same bits in any batch and on any machine, and scoring needs no torch.

Legend: n texts, l tokens of the longest with the two that frame it, h heads, d = 384 dimensions, t tokens of all texts.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from models.embedder import WeightsError
from models.wordpiece import TokenBags

PACKAGED = Path(__file__).parent / "weights" / "token-tagger" / "tagger.safetensors"
SHA256 = "70ed240b5156986ffcb3a276b2dc99f2b8b46d7c61e24f9f52f78af84b59108c"
"""Of the packaged file."""
LAYERS = 3
DIM, HEADS, WIDE = 384, 12, 1536
TOKENS_MAX = 254
"""Tokens that are read together, beside the two that frame them."""
RUN = 8
"""Tokens in a row whose mean a text is judged by."""

_PER_HEAD = DIM // HEADS
_ROWS, _PAIRS = 16, 65_536
"""Pieces that are read together: so many, of so many pairs of tokens in all, which bounds the memory (some 100 MB)."""
_CODE_MAX = np.float32(127)
_SHARES = 65_535.0
"""Codes of shares of attention: a token's sum up to about as much, so that their products stay within 24 bits."""
_EXACT = 768
"""Products of codes that are added up at once: 127 * 127 * 768 is below 2^24."""
_GRID = 1024.0
"""Of states, before they are added up."""
_ODDS_GRID = 65_536.0
_EXP_GRID, _EXP_END = 64, 1024
_GELU_GRID, _GELU_END = 128, 1024
_FLOAT_MAX, _UNIT_MIN = 100.0, 1e-12
"""Of units, gains and biases: what lies beyond them is nobody's weights, and would end in numbers that are none."""
_LINEAR = {"qkv": (DIM, 3 * DIM), "out": (DIM, DIM), "up": (DIM, WIDE), "down": (WIDE, DIM)}
_NORMS = ("attended", "widened")


def _exp_table() -> NDArray[np.float64]:
    """exp(-i / 64) for i of 0 to 1024, in whole units of 2^-20: what libraries differ in is rounded away."""
    return np.rint(np.exp(-np.arange(_EXP_END + 1) / _EXP_GRID) * 2.0**20)


def _gelu_table() -> NDArray[np.float32]:
    """GELU of i / 128 for i of -1024 to 1024, in units of 2^-16."""
    x = np.arange(-_GELU_END, _GELU_END + 1) / _GELU_GRID
    erf = np.array([math.erf(value) for value in (x / math.sqrt(2)).tolist()])
    table: NDArray[np.float32] = (np.rint(x * 0.5 * (1 + erf) * 2.0**16) / 2.0**16).astype(np.float32)
    return table


_EXP, _GELU = _exp_table(), _gelu_table()


class TokenTagger:
    """Log-odds that a user, rather than a tool, wrote each token of a text.

    Parameters
    ----------
    arrays
        ``words`` int8 (V + 2, d) in units of ``words_unit`` float32 (V + 2,): the vocabulary's, and the two tokens that
        frame a text; ``places`` float32 (256, d); ``norm.gain`` and ``norm.bias`` float32 (d,). Of each layer, by its
        number: ``qkv`` int8 (d, 3 d), ``out`` (d, d), ``up`` (d, 4 d) and ``down`` (4 d, d), each with a ``_unit`` and
        a ``_bias`` float32 of its columns; ``attended`` and ``widened``, each with a gain and a bias float32 (d,).
        ``head`` int16 (d,) in units of ``head_unit`` float64 (), and ``head_bias`` float64 ().

    References
    ----------
    Vaswani et al. (2017), Attention is all you need; Wang et al. (2020), MiniLM; Jacob et al. (2018), Quantization and
    training of neural networks for efficient integer-arithmetic-only inference.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        _check(arrays)
        self._arrays = dict(arrays)
        self._read = {
            name: array.astype(np.float32) if name.rpartition(".")[2] in _LINEAR else array
            for name, array in arrays.items()
        }
        self.vocabulary_size = len(arrays["words"]) - 2

    @classmethod
    def load(cls, vocabulary_size: int) -> TokenTagger:
        """The packaged tagger, for bags of a vocabulary of so many tokens.

        Raises
        ------
        WeightsError
            Where its file is missing, differs from its hash, or is for another vocabulary.
        """
        try:
            body = PACKAGED.read_bytes()
        except OSError as error:
            raise WeightsError(f"{PACKAGED}: cannot be read, {error.strerror}. Reinstall tidegate.") from error
        if (found := hashlib.sha256(body).hexdigest()) != SHA256:
            raise WeightsError(f"{PACKAGED}: sha256 must be {SHA256}; got {found}. It is damaged: reinstall tidegate.")
        # A 1 ms import, where torch would take seconds.
        from safetensors.numpy import load

        tagger = cls(load(body))
        if tagger.vocabulary_size != vocabulary_size:
            raise WeightsError(
                f"{PACKAGED}: it must be for a vocabulary of {vocabulary_size} tokens, as the embedder's is; it is for "
                f"{tagger.vocabulary_size}. Leave embedder.path empty."
            )
        return tagger

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """What a release holds of it."""
        return dict(self._arrays)

    def score(self, bags: TokenBags) -> NDArray[np.float32]:
        """The largest mean log-odds (s,) of `RUN` tokens in a row of each text; of one without tokens -inf."""
        out = np.full(len(bags.offsets) - 1, -np.inf, np.float32)
        for rows, odds, sizes in self._tagged(bags):
            total = np.concatenate([np.zeros((len(odds), 1)), np.cumsum(odds, axis=1)], axis=1)
            run = np.minimum(sizes, RUN)
            end = np.arange(1, total.shape[1])
            begin = np.maximum(end - run[:, None], 0)
            mean = (total[:, 1:] - np.take_along_axis(total, begin, axis=1)) / run[:, None]
            whole = (end >= run[:, None]) & (end <= sizes[:, None])
            np.maximum.at(out, rows, np.where(whole, mean, -np.inf).max(axis=1).astype(np.float32))
        return out

    def tag(self, bags: TokenBags) -> NDArray[np.float32]:
        """Log-odds (t,) of each token."""
        out = np.zeros(len(bags.ids), np.float32)
        cut, first = _cut(bags)
        for pieces, odds, sizes in self._batches(cut):
            held = np.arange(odds.shape[1]) < sizes[:, None]
            at = first[pieces][:, None] + np.arange(odds.shape[1])
            out[at[held]] = odds[held]
        return out

    def _tagged(self, bags: TokenBags) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]]:
        """Batches of pieces: the texts they are of, their tokens' log-odds (n, l), and how many tokens they have."""
        cut, first = _cut(bags)
        text = np.searchsorted(bags.offsets, first, "right") - 1
        for pieces, odds, sizes in self._batches(cut):
            yield text[pieces], odds, sizes

    def _batches(self, cut: TokenBags) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]]:
        """Pieces of about one length together."""
        sizes = np.diff(cut.offsets)
        order = np.argsort(sizes, kind="stable")
        begin, end = self.vocabulary_size, self.vocabulary_size + 1
        low = 0
        while low < len(order):
            rows = order[low : low + _ROWS]
            # The longest is the last: of long ones fewer are read together.
            fit = np.flatnonzero((sizes[rows] + 2) ** 2 * np.arange(1, len(rows) + 1) <= _PAIRS)
            rows = rows[: fit[-1] + 1] if len(fit) else rows[:1]
            low += len(rows)
            mine = sizes[rows]
            longest = int(mine[-1])
            ids = np.full((len(rows), longest + 2), begin, np.int64)
            held = np.arange(longest) < mine[:, None]
            ids[:, 1:-1][held] = cut.take(rows).ids
            ids[np.arange(len(rows)), mine + 1] = end
            read = np.arange(longest + 2) < mine[:, None] + 2
            # On one thread: on several, small products wait for each other where the processors have other work.
            with _threads().limit(limits=1, user_api="blas"):
                odds = self._odds(ids, read)[:, 1:-1]
            yield rows, odds, mine

    def _odds(self, ids: NDArray[np.int64], read: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Log-odds (n, l) of tokens, in units of 2^-16, so that sums of them are exact."""
        arrays = self._read
        words = arrays["words"][ids] * arrays["words_unit"][ids][..., None]
        x = self._norm(words + arrays["places"][: ids.shape[1]], "norm")
        for layer in range(LAYERS):
            x = self._norm(x + self._attended(x, read, layer), f"{layer}.attended")
            x = self._norm(x + self._widened(x, layer), f"{layer}.widened")
        states = np.rint(x.astype(np.float64) * _GRID)
        odds = (states @ arrays["head"].astype(np.float64)) * (arrays["head_unit"] / _GRID) + arrays["head_bias"]
        rounded: NDArray[np.float64] = np.rint(odds * _ODDS_GRID) / _ODDS_GRID
        return rounded

    def _attended(self, x: NDArray[np.float32], read: NDArray[np.bool_], layer: int) -> NDArray[np.float32]:
        """What tokens take over from each other (n, l, d)."""
        n, length, _ = x.shape
        parts = self._linear(x, f"{layer}.qkv").reshape(n, length, 3, HEADS, _PER_HEAD).transpose(2, 0, 3, 1, 4)
        query, query_unit = _codes(parts[0])
        key, key_unit = _codes(parts[1])
        value, value_unit = _codes(np.where(read[:, None, :, None], parts[2], np.float32(0)), axis=(2, 3))
        alike = (query @ key.swapaxes(2, 3)) * query_unit * key_unit.swapaxes(2, 3)
        logits = np.where(read[:, None, None, :], alike * np.float32(_PER_HEAD**-0.5), -np.inf)
        below = logits.max(axis=3, keepdims=True) - logits
        below *= np.float32(_EXP_GRID)
        np.minimum(below, np.float32(_EXP_END), out=below)
        # In units of 2^-20 all of them add up to less than 2^53.
        weight = _EXP.take(np.rint(below, out=below).astype(np.intp))
        weight *= read[:, None, None, :]
        weight /= weight.sum(axis=3, keepdims=True)
        weight *= _SHARES
        mixed = np.rint(weight, out=weight).astype(np.float32) @ value
        mixed *= value_unit / np.float32(_SHARES)
        return self._linear(mixed.transpose(0, 2, 1, 3).reshape(n, length, DIM), f"{layer}.out")

    def _widened(self, x: NDArray[np.float32], layer: int) -> NDArray[np.float32]:
        wide = self._linear(x, f"{layer}.up")
        place = wide * np.float32(_GELU_GRID)
        np.clip(place, -_GELU_END, _GELU_END, out=place)
        np.rint(place, out=place)
        place += np.float32(_GELU_END)
        # Beyond the table it is the number itself, or nothing.
        bent = _GELU.take(place.astype(np.intp))
        np.copyto(bent, wide, where=wide > _GELU_END / _GELU_GRID)
        return self._linear(bent, f"{layer}.down")

    def _linear(self, x: NDArray[np.float32], name: str) -> NDArray[np.float32]:
        # One product of all tokens: of three axes numpy makes one for each text.
        codes, unit = _codes(x.reshape(-1, x.shape[-1]))
        weights = self._read[name]
        product: NDArray[np.float32] = codes[:, :_EXACT] @ weights[:_EXACT]
        for low in range(_EXACT, len(weights), _EXACT):
            product += codes[:, low : low + _EXACT] @ weights[low : low + _EXACT]
        # In place: memory that is fresh each time costs as much as the sums.
        product *= unit
        product *= self._read[name + "_unit"]
        product += self._read[name + "_bias"]
        return product.reshape(*x.shape[:-1], product.shape[-1])

    def _norm(self, x: NDArray[np.float32], name: str) -> NDArray[np.float32]:
        """Layer normalisation, of states on a grid, whose sums are exact."""
        states = np.rint(x.astype(np.float64) * _GRID)
        mean = states.sum(axis=-1, keepdims=True) / DIM
        spread = np.sqrt((states * states).sum(axis=-1, keepdims=True) / DIM - mean * mean + 1e-12 * _GRID**2)
        scaled = ((states - mean) / spread).astype(np.float32)
        normed: NDArray[np.float32] = scaled * self._read[name + ".gain"] + self._read[name + ".bias"]
        return normed


@cache
def _threads() -> ThreadpoolController:
    return ThreadpoolController()


def _codes(x: NDArray[np.float32], axis: int | tuple[int, int] = -1) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Whole numbers of -127 to 127 that stand for `x`, and their units, one for all along `axis`."""
    peak = np.maximum(x.max(axis=axis, keepdims=True), -x.min(axis=axis, keepdims=True))
    unit = np.where(peak > 0, peak / _CODE_MAX, np.float32(1)).astype(np.float32)
    codes = x / unit
    return np.rint(codes, out=codes), unit


def _cut(bags: TokenBags) -> tuple[TokenBags, NDArray[np.int64]]:
    """Pieces of at most `TOKENS_MAX` tokens of the texts that have any, and where each begins.

    >>> cut, first = _cut(TokenBags(np.arange(300, dtype=np.uint16), np.array([0, 5, 5, 300])))
    >>> cut.offsets.tolist(), first.tolist()
    ([0, 5, 259, 300], [0, 5, 259])
    """
    sizes = np.diff(bags.offsets)
    many = -(-sizes // TOKENS_MAX)
    number = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
    first = np.repeat(bags.offsets[:-1], many) + number * TOKENS_MAX
    return TokenBags(bags.ids, np.append(first, bags.offsets[-1])), first


def _shapes(words: int) -> dict[str, tuple[type[np.generic], tuple[int, ...]]]:
    """Every array by name."""
    shapes: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
        "words": (np.int8, (words, DIM)),
        "words_unit": (np.float32, (words,)),
        "places": (np.float32, (TOKENS_MAX + 2, DIM)),
        "head": (np.int16, (DIM,)),
        "head_unit": (np.float64, ()),
        "head_bias": (np.float64, ()),
    }
    for layer in range(LAYERS):
        for name, (rows, columns) in _LINEAR.items():
            shapes[f"{layer}.{name}"] = (np.int8, (rows, columns))
            shapes[f"{layer}.{name}_unit"] = shapes[f"{layer}.{name}_bias"] = (np.float32, (columns,))
    for norm in ("norm", *(f"{layer}.{name}" for layer in range(LAYERS) for name in _NORMS)):
        shapes[f"{norm}.gain"] = shapes[f"{norm}.bias"] = (np.float32, (DIM,))
    return shapes


def _check(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse arrays that are not those of a `TokenTagger`, with a ValueError that names the array."""
    shapes = _shapes(len(arrays["words"]) if "words" in arrays else 0)
    if arrays.keys() != shapes.keys():
        raise ValueError(f"a token tagger needs the arrays {sorted(shapes)}; got {sorted(arrays)}.")
    for name, (dtype, shape) in shapes.items():
        array = arrays[name]
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(f"{name} must be {np.dtype(dtype)} {shape}; got {array.dtype} {array.shape}.")
        if array.dtype.kind == "f" and not (np.abs(array) <= _FLOAT_MAX).all():
            raise ValueError(f"{name} must be finite, and at most {_FLOAT_MAX:g} in size.")
        if name.endswith("_unit") and not (array > _UNIT_MIN).all():
            raise ValueError(f"{name} must be above {_UNIT_MIN:g}; got {array.min(initial=1)}.")
    if len(arrays["words"]) < 2:
        raise ValueError("words must hold the two tokens that frame a text.")
