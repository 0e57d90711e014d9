"""Fine-tune a `TokenTagger` on text of which it is known who wrote it, and of both placed into each other.

Legend: s segments, b segments of a step, l tokens of the longest with the two that frame it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from transformers import AutoModel

from models.minilm import bfloat16_is_fast, ids_of
from models.token_tagger import LAYERS, TOKENS_MAX, TokenTagger
from models.training.splices import Splicing, join, splice
from models.wordpiece import TokenBags


@dataclass(frozen=True, slots=True)
class Fit:
    """How to fit."""

    steps: int = 2_200
    rows: int = 32
    """Segments of a step: half of them with a user's words in a tool's, a quarter with a tool's in a tool's, and a
    quarter as they are."""
    splicing: Splicing = field(default_factory=lambda: Splicing(shortest=6, longest=40, total_max=44))
    plain_users: float = 0.3
    """Of the segments that are read as they are, the share that users wrote."""
    learning_rate: float = 2e-4
    head_learning_rate: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 0.01
    gradient_max: float = 1.0


@dataclass(frozen=True, slots=True)
class Sides:
    """Segments (s), and how often each is drawn beside the others, (s,): 0 for what is none."""

    bags: TokenBags
    user: NDArray[np.float64]
    """As a user's."""
    tool: NDArray[np.float64]
    """As a tool's that is placed into another, or read as it is."""
    host: NDArray[np.float64]
    """As a tool's that others are placed into."""


def fit_token_tagger(
    sides: Sides,
    vocabulary: Sequence[str],
    weights: Path,
    *,
    seed: int,
    how: Fit = Fit(),
    device: str = "cpu",
    progress: Callable[[int, float], None] = lambda _step, _loss: None,
) -> dict[str, NDArray[Any]]:
    """Arrays of a `TokenTagger` that starts from MiniLM's first layers.

    Each token has a label of its own: 1 where a user wrote it, 0 where a tool did. Words' vectors stay as they are, as
    a few thousand segments would move those of few words.

    Parameters
    ----------
    sides
        What to learn from.
    vocabulary
        Whose ids the bags hold.
    weights
        MiniLM's folder (`models.minilm.checked_weights`).
    progress
        Told each step and its loss, smoothed.
    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    ids, begin, end = ids_of(vocabulary, weights)
    model = AutoModel.from_pretrained(
        str(weights), num_hidden_layers=LAYERS, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        attn_implementation="eager",
    ).to(device)  # fmt: skip
    model.embeddings.word_embeddings.requires_grad_(requires_grad=False)
    head = nn.Linear(model.config.hidden_size, 1).to(device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    learned = [*model.encoder.parameters(), *model.embeddings.LayerNorm.parameters()]
    optimiser = torch.optim.AdamW(
        [
            {"params": learned, "lr": how.learning_rate},
            {"params": head.parameters(), "lr": how.head_learning_rate},
        ],
        weight_decay=how.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / how.warmup_steps, 1) * (1 - step / how.steps)
    )
    mean = 0.0
    for step in range(how.steps):
        bags, by_user = _drawn(sides, rng, how)
        told, labels, counted = _padded(bags, by_user, ids, begin, end)
        with torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=bfloat16_is_fast(device)):
            states = model(
                input_ids=torch.from_numpy(told).to(device), attention_mask=_mask(bags, told.shape[1]).to(device)
            ).last_hidden_state
        odds = head(states.float())[..., 0]
        losses = functional.binary_cross_entropy_with_logits(odds, labels.to(device), reduction="none")
        loss = (losses * counted.to(device)).sum() / counted.sum().to(device)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(learned, how.gradient_max)
        optimiser.step()
        schedule.step()
        mean = float(loss.detach()) if step == 0 else 0.99 * mean + 0.01 * float(loss.detach())
        progress(step + 1, mean)
    tensors = {name: tensor.detach().float().cpu().numpy() for name, tensor in model.state_dict().items()}
    arrays = _arrays(tensors, head, np.append(ids, [begin, end]))
    TokenTagger(arrays)
    return arrays


def averaged(one: Mapping[str, NDArray[Any]], other: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Arrays of a tagger whose weights are the means of two that began alike and learned from different lessons.

    References
    ----------
    Wortsman et al. (2022), Model soups: averaging weights of multiple fine-tuned models improves accuracy.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for name, array in one.items():
        if name in arrays or name.endswith("_unit"):
            continue
        unit = name + "_unit"
        if unit not in one or name == "words":
            # Words' vectors are not learned.
            arrays[name] = array if name == "words" else ((array + other[name]) / 2).astype(array.dtype)
            arrays |= {unit: one[unit]} if name == "words" else {}
            continue
        mean = (array.astype(np.float64) * one[unit] + other[name].astype(np.float64) * other[unit]) / 2
        arrays[name], arrays[unit] = _head(mean) if name == "head" else _quantised(mean.astype(np.float32))
    TokenTagger(arrays)
    return arrays


def _drawn(sides: Sides, rng: np.random.Generator, how: Fit) -> tuple[TokenBags, NDArray[np.bool_]]:
    """Segments (b) of a step, and which of their tokens a user wrote."""
    half, quarter = how.rows // 2, how.rows // 4
    plain = how.rows - half - quarter

    def draw(share: NDArray[np.float64], count: int) -> NDArray[np.int64]:
        return rng.choice(len(share), count, p=share / share.sum())

    donors = np.concatenate([draw(sides.user, half), draw(sides.tool, quarter)])
    spliced, placed = splice(sides.bags, draw(sides.host, half + quarter), donors, rng, how.splicing)
    of_user = placed & np.repeat(np.arange(len(donors)) < half, np.diff(spliced.offsets))
    users = rng.random(plain) < how.plain_users
    rows = np.where(users, draw(sides.user, plain), draw(sides.tool, plain))
    alone = sides.bags.take(rows)
    return join(spliced, alone), np.concatenate([of_user, np.repeat(users, np.diff(alone.offsets))])


def _padded(
    bags: TokenBags, by_user: NDArray[np.bool_], ids: NDArray[np.int64], begin: int, end: int
) -> tuple[NDArray[np.int64], torch.Tensor, torch.Tensor]:
    """The model's ids (b, l), labels (b, l), and 1 where a token has one."""
    sizes = np.minimum(np.diff(bags.offsets), TOKENS_MAX)
    longest = int(sizes.max())
    told = np.zeros((len(sizes), longest + 2), np.int64)
    labels, counted = np.zeros(told.shape, np.float32), np.zeros(told.shape, np.float32)
    held = np.arange(longest) < sizes[:, None]
    at = (bags.offsets[:-1][:, None] + np.arange(longest))[held]
    told[:, 0] = begin
    told[:, 1:-1][held] = ids[bags.ids[at]]
    told[np.arange(len(sizes)), sizes + 1] = end
    labels[:, 1:-1][held] = by_user[at]
    counted[:, 1:-1][held] = 1
    return told, torch.from_numpy(labels), torch.from_numpy(counted)


def _mask(bags: TokenBags, length: int) -> torch.Tensor:
    sizes = np.minimum(np.diff(bags.offsets), TOKENS_MAX)
    return torch.from_numpy((np.arange(length) < sizes[:, None] + 2).astype(np.int64))


def _arrays(tensors: Mapping[str, NDArray[np.float32]], head: nn.Linear, rows: NDArray[np.int64]) -> dict[str, Any]:
    """The model in whole numbers."""
    table = tensors["embeddings.word_embeddings.weight"][rows]
    words, unit = _quantised(table.T)
    first_type = tensors["embeddings.token_type_embeddings.weight"][0]
    codes, head_unit = _head(head.weight.detach().cpu().numpy()[0].astype(np.float64))
    arrays: dict[str, Any] = {
        "words": np.ascontiguousarray(words.T),
        "words_unit": unit,
        "places": tensors["embeddings.position_embeddings.weight"][: TOKENS_MAX + 2] + first_type,
        "norm.gain": tensors["embeddings.LayerNorm.weight"],
        "norm.bias": tensors["embeddings.LayerNorm.bias"],
        "head": codes,
        "head_unit": head_unit,
        "head_bias": np.array(float(head.bias.detach().cpu()[0])),
    }
    for layer in range(LAYERS):
        theirs, ours = f"encoder.layer.{layer}.", f"{layer}."
        own = [theirs + f"attention.self.{name}." for name in ("query", "key", "value")]
        linear = {
            "qkv": [np.concatenate([tensors[name + part] for name in own]) for part in ("weight", "bias")],
            "out": [tensors[theirs + f"attention.output.dense.{part}"] for part in ("weight", "bias")],
            "up": [tensors[theirs + f"intermediate.dense.{part}"] for part in ("weight", "bias")],
            "down": [tensors[theirs + f"output.dense.{part}"] for part in ("weight", "bias")],
        }
        for name, (matrix, bias) in linear.items():
            arrays[ours + name], arrays[ours + name + "_unit"] = _quantised(matrix.T)
            arrays[ours + name + "_bias"] = bias
        for name, norm in (("attended", "attention.output.LayerNorm"), ("widened", "output.LayerNorm")):
            arrays[f"{ours}{name}.gain"] = tensors[f"{theirs}{norm}.weight"]
            arrays[f"{ours}{name}.bias"] = tensors[f"{theirs}{norm}.bias"]
    return arrays


def _head(weight: NDArray[np.float64]) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    unit = np.abs(weight).max() / 32_767
    return np.rint(weight / unit).astype(np.int16), np.array(unit)


def _quantised(matrix: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Codes of -127 to 127, and what a code of each column is worth."""
    peak = np.abs(matrix).max(axis=0)
    unit = np.where(peak > 0, peak / np.float32(127), np.float32(1)).astype(np.float32)
    return np.ascontiguousarray(np.rint(matrix / unit).astype(np.int8)), unit
