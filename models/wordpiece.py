"""BERT's uncased WordPiece, as token ids in flat arrays, with a cache of what lies between two blanks.

Blanks end every word, so a text's tokens are those of its blank-separated chunks in a row, and most chunks have been
seen before: a text costs one split and one look-up a chunk. The `tokenizers` library normalises what is not ASCII; on
text whose characters the vocabulary knows, ids equal the library's, which the tests check.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers.normalizers import Normalizer
    from tokenizers.pre_tokenizers import PreTokenizer

VERSION = 1
"""Part of every space_id: raise it when the same text would get other ids."""

UNKNOWN = "[UNK]"
_ID_BYTES = 2

# str.split() breaks words at these, the library deletes them; the other control characters go when a chunk is new.
_NO_BLANK = re.compile("[\x0b\x0c\x1c-\x1f\x85]")
_NO_CONTROLS = dict.fromkeys([*range(0x20), 0x7F])
_ASCII_WORDS = re.compile(r"[a-z0-9]+|[!-/:-@\[-`{-~]")
# The library puts blanks around ideographs; a run between them (kana, fullwidth marks) is a chunk of its own.
_IDEOGRAPHS = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]|[^\u3400-\u4dbf\u4e00-\u9fff]+")


@dataclass(frozen=True, slots=True)
class TokenBags:
    """The tokens of n texts.

    Parameters
    ----------
    ids
        (t,) uint16, text after text.
    offsets
        (n + 1,) int64: text i has `ids[offsets[i]:offsets[i + 1]]`.
    """

    ids: NDArray[np.uint16]
    offsets: NDArray[np.int64]

    def take(self, index: NDArray[np.integer]) -> TokenBags:
        """The bags of the texts `index`.

        >>> TokenBags(np.array([5, 6, 7], np.uint16), np.array([0, 1, 3])).take(np.array([1])).ids
        array([6, 7], dtype=uint16)
        """
        lengths = np.diff(self.offsets)[index]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        at = np.arange(int(offsets[-1])) + np.repeat(self.offsets[:-1][index] - offsets[:-1], lengths)
        return TokenBags(self.ids[at], offsets)


class WordPiece:
    """Texts in, bags of token ids out.

    As in model2vec, no special tokens are added and unknown ones are left out. Three things differ from BERT, so that a
    text cannot be made invisible: characters that the vocabulary does not know are deleted rather than taking their
    whole word along (an emoji glued to each word would empty the text), words have no greatest length, and `[UNK]` or
    `[PAD]` written out are ordinary characters.

    Parameters
    ----------
    tokens
        The vocabulary; a token's place is its id. At most 65,536, continuations begin with `##`.
    tokens_max
        Tokens kept of a text.
    characters_max
        Characters looked at of a text, which bounds the time one text can take.
    chunks_max
        Chunks cached in each of two generations (about 250 bytes each); when the younger is full it becomes the older.

    Examples
    --------
    >>> pieces = WordPiece(["[UNK]", "book", "a", "flight", "##s", "!"])
    >>> bags = pieces.encode(["Book a flight", "", "Flights! 🛫"])
    >>> bags.ids
    array([1, 2, 3, 3, 4, 5], dtype=uint16)
    >>> bags.offsets
    array([0, 3, 3, 6])

    References
    ----------
    Devlin et al. (2019), BERT; Schuster and Nakajima (2012), Japanese and Korean voice search: WordPiece.
    """

    def __init__(
        self, tokens: Sequence[str], *, tokens_max: int = 256, characters_max: int = 4096, chunks_max: int = 50_000
    ) -> None:
        if UNKNOWN not in tokens or len(tokens) > 1 << 8 * _ID_BYTES:
            raise ValueError(f"a vocabulary must hold {UNKNOWN} and at most 65536 tokens; got {len(tokens)} tokens.")
        self.tokens_max = tokens_max
        self.characters_max = characters_max
        ids = {token: place.to_bytes(_ID_BYTES, "little") for place, token in enumerate(tokens)}
        self.vocabulary = tuple(tokens)
        self.continues = np.fromiter((token.startswith("##") for token in tokens), np.bool_, len(tokens))
        """(V,) whether a token goes on with a word that another has begun."""
        self._begins = {token: id_ for token, id_ in ids.items() if not token.startswith("##")}
        self._continues = {token[2:]: id_ for token, id_ in ids.items() if token.startswith("##")}
        self._begins_longest = _longest_by_beginning(self._begins)
        self._continues_longest = _longest_by_beginning(self._continues)
        self._alphabet = {token for token in self._begins if len(token) == 1}
        self._chunks = _Chunks(self._tokenise, chunks_max)
        self._normaliser: Normalizer | None = None
        self._splitter: PreTokenizer | None = None

    def encode(self, texts: Sequence[str]) -> TokenBags:
        """Token ids of `texts`, each cut at `tokens_max`; a text without known characters has none."""
        look_up = self._chunks.__getitem__
        bytes_max = self.tokens_max * _ID_BYTES
        characters_max = self.characters_max
        bags: list[bytes] = []
        for text in texts:
            if len(text) > characters_max:
                text = text[:characters_max]
            if text.isascii():
                text = text.lower()
            if not text.isprintable() and _NO_BLANK.search(text):
                text = _NO_BLANK.sub("", text)
            bag = b"".join(map(look_up, text.split()))
            bags.append(bag if len(bag) <= bytes_max else bag[:bytes_max])
        offsets = np.zeros(len(bags) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, bags), np.int64, len(bags)) // _ID_BYTES, out=offsets[1:])
        return TokenBags(np.frombuffer(b"".join(bags), "<u2"), offsets)

    def _tokenise(self, chunk: str) -> bytes:
        """Ids of a chunk without blanks that is in no cache."""
        if not chunk.isascii():
            runs = _IDEOGRAPHS.findall(chunk)
            if len(runs) > 1:
                return b"".join(map(self._chunks.__getitem__, runs))
            return b"".join(map(self._word, self._library_words(chunk)))
        if not chunk.isprintable():
            chunk = chunk.translate(_NO_CONTROLS)
        words = _ASCII_WORDS.findall(chunk.lower())
        if len(words) == 1:
            return self._word(words[0])
        begins = self._begins
        return b"".join([begins[word] if word in begins else self._word(word) for word in words])

    def _word(self, word: str) -> bytes:
        r"""Ids of one normalised word: the longest token that fits, again and again.

        >>> WordPiece(["[UNK]", "f", "fl", "##ight", "##s"])._word("flights")
        b'\x02\x00\x03\x00\x04\x00'
        """
        known = self._begins.get(word)
        if known is not None:
            return known
        found: list[bytes] = []
        tokens, longest = self._begins, self._begins_longest
        start, length = 0, len(word)
        while start < length:
            # Trying no more than the longest token with this beginning keeps it linear; the library's is quadratic.
            end = min(length, start + longest.get(word[start : start + 2], 1))
            piece = tokens.get(word[start:end])
            while piece is None and end > start + 1:
                end -= 1
                piece = tokens.get(word[start:end])
            if piece is None:
                rest = "".join(filter(self._alphabet.__contains__, word))
                return self._word(rest) if rest != word else b""
            found.append(piece)
            start = end
            tokens, longest = self._continues, self._continues_longest
        return b"".join(found)

    def _library_words(self, chunk: str) -> list[str]:
        """Words and marks of a chunk that is not ASCII, normalised."""
        if self._normaliser is None or self._splitter is None:
            # Only non-ASCII text needs the library, so that starting up does not.
            from tokenizers.normalizers import BertNormalizer
            from tokenizers.pre_tokenizers import BertPreTokenizer

            self._normaliser, self._splitter = BertNormalizer(), BertPreTokenizer()
        # Lone surrogates cannot be passed to the library, which would delete them as it does all of category C.
        valid = chunk.encode("utf-8", "ignore").decode("utf-8")
        return [word for word, _ in self._splitter.pre_tokenize_str(self._normaliser.normalize_str(valid))]


def _longest_by_beginning(tokens: Iterable[str]) -> dict[str, int]:
    """Length of the longest token with each two first characters.

    >>> _longest_by_beginning(["a", "abc", "ab", "ba"])
    {'a': 1, 'ab': 3, 'ba': 2}
    """
    longest: dict[str, int] = {}
    for token in tokens:
        longest[token[:2]] = max(len(token), longest.get(token[:2], 0))
    return longest


class _Chunks(dict[str, bytes]):
    """Ids by chunk in two generations: what is in use survives, and memory is bounded."""

    # A chunk beyond this is hardly ever seen twice, and would make the bound on entries no bound on bytes.
    _length_max = 64

    def __init__(self, tokenise: Callable[[str], bytes], size_max: int) -> None:
        super().__init__()
        self._tokenise = tokenise
        self._size_max = size_max
        self._older: dict[str, bytes] = {}

    def __missing__(self, chunk: str) -> bytes:
        ids = self._older.get(chunk)
        if ids is None:
            ids = self._tokenise(chunk)
        if len(chunk) <= self._length_max:
            if len(self) >= self._size_max:
                self._older = dict(self)
                self.clear()
            self[chunk] = ids
        return ids
