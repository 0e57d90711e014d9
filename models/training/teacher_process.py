"""One process of the teacher's fine-tuning: `python -m models.training.teacher_process FOLDER RANK WORLD DEVICE`.

Started by `models.training.teacher`, which writes the folder's lesson and reads what comes of it. It ends as soon as
its standard input does: whoever started it is gone then, however that happened. Rank 0 says on its standard output how
far it is, a line of JSON a step.

The head is the model's last module rather than the loss's: what belongs to a loss is neither kept in checkpoints nor
averaged between processes by sentence-transformers' trainer.

Legend: b segments of a step, c classes.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

LESSON, LOSSES, TENSORS = "lesson.safetensors", "losses.json", "teacher.safetensors"
COMPLETE = "complete"
"""Is in a checkpoint that was written to its end."""
_READ_TOGETHER = 16
"""Segments of about one length that are read together."""
_CLIPPED = 1.0


def answers(rank: int) -> str:
    """File of what process `rank` has read."""
    return f"answers-{rank}.safetensors"


def checkpoints(folder: Path) -> Path:
    """Where the trainer keeps them, in a lesson's folder."""
    return folder / "checkpoints"


def main(folder: Path, rank: int, world: int, device: str) -> None:
    """Fine-tune with the other processes, from the last whole checkpoint on; then read a share of what is asked."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Libraries read these when they are imported. Nothing is looked up anywhere, and gloo stays on the machine.
    told = {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
        "GLOO_SOCKET_IFNAME": _loopback(),
        "NCCL_SOCKET_IFNAME": _loopback(),
    }
    if world > 1:
        told |= dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank))
        told |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(world))
    os.environ.update(told)  # noqa: TID251 -- nothing is read
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(folder / LESSON, "pt") as file:
        lesson = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- it is no mapping
        how: dict[str, Any] = json.loads(file.metadata()["how"])
    device = _device(device, rank, world)
    # What work is shared out among threads may move a sum's last bit; processes are what is side by side here.
    torch.set_num_threads(1)
    torch.manual_seed(how["seed"])
    if world > 1:
        # A file, as torch's store listens on every interface of the machine whatever address it is given.
        torch.distributed.init_process_group(
            "nccl" if device == "cuda" else "gloo", f"file://{folder / 'meeting'}", rank=rank, world_size=world
        )
    model = _model(Path(how["weights"]), how, device)
    _tune(model, lesson, how, folder, world, device)
    if rank == 0:
        tuned = {name: p.detach().cpu().contiguous() for name, p in model.named_parameters() if p.requires_grad}
        _replaced(folder / TENSORS, lambda path: save_file(tuned, path))
    read = _read(model, lesson["read_ids"].numpy(), lesson["read_offsets"].numpy(), rank, world, how["classes"])
    _replaced(folder / answers(rank), lambda path: save_file(read, path))
    if world > 1:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def _device(device: str, rank: int, world: int) -> str:
    """`cpu` or `cuda`; a process has a GPU of its own."""
    import torch

    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if torch.cuda.device_count() < world:
        raise SystemExit(f"{world} processes need as many GPUs; there are {torch.cuda.device_count()}.")
    torch.cuda.set_device(rank)
    return "cuda"


def _model(weights: Path, how: dict[str, Any], device: str) -> SentenceTransformer:
    """MiniLM's first layers with a linear head of c classes on the mean of their states; the words' vectors are fixed.

    It drops nothing: a few hundred steps do not overfit by it, and what is dropped would depend on how segments are
    shared out among processes.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer

    transformer = Transformer(
        str(weights),
        max_seq_length=how["tokens_max"],
        config_kwargs={
            "num_hidden_layers": how["layers"],
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
    )
    dim = transformer.get_embedding_dimension()
    head = Dense(
        dim,
        how["classes"],
        activation_function=torch.nn.Identity(),
        init_weight=torch.zeros(how["classes"], dim),
        init_bias=torch.zeros(how["classes"]),
    )
    learns = re.compile(r"\bencoder\.layer\.|^2\.")
    modules = [transformer, Pooling(dim, pooling_mode="mean"), head]
    model = SentenceTransformer(modules=modules, device=device)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(bool(learns.search(name)))
    return model


def _tune(
    model: SentenceTransformer,
    lesson: dict[str, torch.Tensor],
    how: dict[str, Any],
    folder: Path,
    world: int,
    device: str,
) -> None:
    import torch
    from datasets import Dataset  # type: ignore[import-untyped]
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.base.sampler import DefaultBatchSampler
    from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
    from torch.utils.data import BatchSampler, SequentialSampler
    from transformers import PrinterCallback, TrainerCallback

    from models.minilm import bfloat16_is_fast

    class Steady(SentenceTransformerTrainer):
        """Batches as the lesson's order has them, so that every number of processes sees the same ones."""

        def get_batch_sampler(self, dataset: Any, batch_size: int, drop_last: bool, *_: Any, **__: Any) -> BatchSampler:
            return DefaultBatchSampler(SequentialSampler(dataset), batch_size=batch_size, drop_last=drop_last)

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            # As theirs, without the settings' pickle, which nobody reads, and a card for every checkpoint.
            self.model.save_pretrained(str(output_dir or self.args.output_dir), create_model_card=False)

    class Told(TrainerCallback):
        """Says how far it is, keeps every step's loss, and marks checkpoints that are whole."""

        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            logs = kwargs["logs"]
            if state.is_world_process_zero and "loss" in logs:
                told = {"step": state.global_step, "of": state.max_steps, "loss": logs["loss"]}
                print(json.dumps(told), flush=True)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_save = control.should_save or state.global_step >= state.max_steps

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if world > 1:
                torch.distributed.barrier()
            if state.is_world_process_zero:
                (_checkpoint(folder, state.global_step) / COMPLETE).touch()

    ids, offsets, order = (lesson[name].numpy() for name in ("ids", "offsets", "order"))
    bags = [ids[low:high].tolist() for low, high in pairwise(offsets)]
    labels = lesson["labels"].numpy().tolist()
    stream = Dataset.from_dict({"segment": [bags[i] for i in order], "label": [labels[i] for i in order]})
    steps, loss_of = len(order) // how["batch"], _loss_class()
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(checkpoints(folder)),
        per_device_train_batch_size=how["batch"] // world,
        max_steps=steps,
        learning_rate=how["learning_rate"],
        # The head begins at nothing, the layers at what they have learned.
        learning_rate_mapping={r"\b2\.linear\.": how["head_learning_rate"]},
        warmup_steps=max(steps // 10, 1),
        lr_scheduler_type="linear",
        weight_decay=0.01,
        max_grad_norm=_CLIPPED,
        logging_steps=1,
        save_strategy="steps",
        save_steps=how["checkpoint_steps"],
        save_total_limit=2,
        seed=how["seed"],
        bf16=bfloat16_is_fast(device),
        use_cpu=device == "cpu",
        dataloader_pin_memory=device != "cpu",
        ddp_find_unused_parameters=False,
        average_tokens_across_devices=False,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Steady(
        model=model,
        args=arguments,
        train_dataset=stream,
        loss=loss_of(model),
        data_collator=SentenceTransformerDataCollator(preprocess_fn=_padded),
        callbacks=[Told()],
    )
    trainer.remove_callback(PrinterCallback)
    last = _last_checkpoint(folder)
    trainer.train(resume_from_checkpoint=str(last) if last is not None else None)
    if trainer.is_world_process_zero():
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        _replaced(folder / LOSSES, lambda path: path.write_text(json.dumps(losses)))


def _loss_class() -> Callable[[SentenceTransformer], torch.nn.Module]:
    import torch

    class Multilabel(torch.nn.Module):
        """Mean binary cross-entropy (b, c) of each class by itself: a segment may be of several."""

        def __init__(self, model: SentenceTransformer) -> None:
            super().__init__()
            self.model = model

        def forward(self, features: list[dict[str, torch.Tensor]], labels: torch.Tensor) -> torch.Tensor:
            logits = self.model(features[0])["sentence_embedding"]
            return torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), labels.float())

    return Multilabel


def _padded(segments: Sequence[Sequence[int]], **_: Any) -> dict[str, torch.Tensor]:
    """Token ids (b, longest), padded with 0, and which of them are tokens."""
    import torch

    ids = torch.zeros((len(segments), max(map(len, segments))), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, segment in enumerate(segments):
        ids[row, : len(segment)] = torch.tensor(segment)
        mask[row, : len(segment)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def _read(
    model: SentenceTransformer,
    ids: NDArray[np.int64],
    offsets: NDArray[np.int64],
    rank: int,
    world: int,
    classes: int,
) -> dict[str, torch.Tensor]:
    """Log-odds (m, c) of every `world`-th batch of segments, and which segments they are."""
    import torch

    sizes = np.diff(offsets)
    order = np.argsort(sizes, kind="stable")
    rows: list[NDArray[np.int64]] = []
    logits: list[torch.Tensor] = []
    model.eval()
    with torch.inference_mode(), torch.autocast(model.device.type, torch.bfloat16, enabled=model.device.type == "cuda"):
        for low in range(rank * _READ_TOGETHER, len(order), world * _READ_TOGETHER):
            mine = order[low : low + _READ_TOGETHER]
            batch = _padded([ids[offsets[i] : offsets[i + 1]].tolist() for i in mine])
            features = {name: tensor.to(model.device) for name, tensor in batch.items()}
            logits.append(model(features)["sentence_embedding"].float().cpu())
            rows.append(mine)
    return {
        "rows": torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *rows])),
        "logits": torch.cat([torch.zeros((0, classes)), *logits]),
    }


def _checkpoint(folder: Path, step: int) -> Path:
    return checkpoints(folder) / f"checkpoint-{step}"


def _last_checkpoint(folder: Path) -> Path | None:
    """The last that is whole: the trainer writes them in place, and may have been killed meanwhile."""
    whole = [path.parent for path in checkpoints(folder).glob(f"checkpoint-*/{COMPLETE}")]
    return max(whole, key=lambda path: int(path.name.partition("-")[2]), default=None)


def _replaced(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file whole or not at all."""
    new = path.with_name(path.name + ".new")
    write(new)
    new.replace(path)


def _loopback() -> str:
    return next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
