"""The language model on the bytes of a text file."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from plstm_testing.datasets.text import evaluation_streams, load_text, training_windows, windows_per_epoch
from plstm_torch.generation import sample_tokens
from plstm_torch.optional import FailedRunError, UserError
from plstm_torch.settings import TextSettings
from plstm_torch.training import plots
from plstm_torch.training.distributed import World
from plstm_torch.training.model_configs import text_config
from plstm_torch.training.model_task import ModelTask
from plstm_torch.training.order import Batch
from plstm_torch.training.run_folder import EXAMPLES_FILE, SAMPLE_FILE, RunFolder

_EVALUATION_CHUNK = 512
_HEAT_BYTES = 1008


class TextTask(ModelTask):
    """Predicts each byte of a text from those before it."""

    name = "text"
    headline = "bits_per_byte"
    settings: TextSettings

    def __init__(self, settings: TextSettings, seed: int) -> None:
        """Read the text.

        Args:
            settings: text and model.
            seed: of the run.

        Raises:
            UserError: if the text is no longer the one that the run began with.
            ValueError: if the text cannot be read or is too short, or the model's sizes are impossible.
        """
        text_config(settings, "float32")  # finds impossible sizes before the text is read
        path = Path(settings.file)
        self.text = load_text(path, context_length=settings.context_length, held_out=settings.held_out)
        if settings.digest and settings.digest != self.text.digest:
            raise UserError(f"{path} is not the text that this run began with (it has changed)")
        self.settings, self.seed = replace(settings, digest=self.text.digest, file=str(path.resolve())), seed
        self.streams = evaluation_streams(self.text, streams=settings.streams, warm_up=settings.context_length)

    @property
    def num_samples(self) -> int:
        """Windows in an epoch."""
        return min(windows_per_epoch(len(self.text.head), self.settings.context_length), self.settings.epoch_windows)

    @property
    def predictions_per_sample(self) -> int:
        """Bytes in a window."""
        return self.settings.context_length

    def batch(self, epoch: int, indices: Sequence[int]) -> Batch:
        """Return windows and the bytes that follow each of theirs."""
        context = self.settings.context_length
        available = windows_per_epoch(len(self.text.head), context)
        # where an epoch is shorter than the text, successive epochs go on where the last one stopped
        windows = [(index + epoch * self.num_samples) % available for index in indices]
        cut = training_windows(self.text.head, windows, context_length=context, seed=self.seed, epoch=epoch)
        return torch.from_numpy(cut[0]), torch.from_numpy(cut[1])

    def model_config(self, dtype: str) -> Any:
        """Return the model's config."""
        return text_config(self.settings, dtype)

    def evaluate(self, model: nn.Module, world: World) -> dict[str, float]:
        """Return the mean loss and the bits per byte over the whole tail, read with the state carried along."""
        rows = list(world.shard(range(len(self.streams.values))))
        sums = {"loss": 0.0, "count": 0.0}
        if rows:
            values, counts = (torch.from_numpy(part[rows]) for part in (self.streams.values, self.streams.counts))
            for losses, counted in stream_losses(model, values, counts, world.device):
                sums["loss"] += losses[counted].to(torch.float64).sum().item()
                sums["count"] += counted.sum().item()
        total = world.sum(sums)
        loss = total["loss"] / total["count"]
        return {"test_loss": loss, "bits_per_byte": loss / math.log(2)}

    def finish(self, model: nn.Module, device: torch.device, folder: RunFolder) -> None:
        """Draw what the first bytes of the tail cost, and write a sample that continues the head; see `Task.finish`."""
        model.eval()
        length = min(_HEAT_BYTES, len(self.text.tail))
        warm_up = self.streams.values.shape[1] - int(self.streams.counts[0].sum())
        read = np.concatenate([self.text.head[-warm_up:], self.text.tail[:length]]).astype(np.int64)
        first = torch.from_numpy(read)[None]
        counts = (torch.arange(first.shape[1]) >= warm_up)[None]
        with torch.no_grad():
            losses = torch.cat([part[counted] for part, counted in stream_losses(model, first, counts, device)])
        bits = (losses.to(torch.float64) / math.log(2)).numpy()
        figure = plots.text_heat(bytes(self.text.tail[:length].tolist()), np.asarray(bits))
        folder.save_picture(EXAMPLES_FILE, figure.savefig)
        prompt = bytes(self.text.head[-64:].tolist())
        sample = b"".join(sample_bytes(model, prompt, self.settings.sample_length, device=device, seed=self.seed))
        folder.save_text(SAMPLE_FILE, (prompt + sample).decode("utf-8", errors="replace"))


def stream_losses(
    model: nn.Module, values: Tensor, counts: Tensor, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Read rows of bytes from left to right in chunks, the model's state carried along.

    Args:
        model: with a cache, as pLSTMLMModel.
        values: [S, L] int64.
        counts: [S, L] bool, which bytes are to be predicted; not the first of a row.
        device: of the model.

    Yields:
        For each chunk the loss of every byte [S, C] in nats and which of them count [S, C], both on the CPU.
    """
    cache = None
    for start in range(0, values.shape[1] - 1, _EVALUATION_CHUNK):
        chunk = values[:, start : start + _EVALUATION_CHUNK + 1].to(device)
        logits, cache = model(chunk[:, :-1], cache=cache, return_cache=True)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        losses = nn.functional.cross_entropy(logits.flatten(0, 1), chunk[:, 1:].flatten(), reduction="none")
        yield losses.view(chunk.shape[0], -1).cpu(), counts[:, start + 1 : start + chunk.shape[1]]


@torch.no_grad()
def sample_bytes(
    model: Any,
    prompt: bytes,
    length: int,
    *,
    device: torch.device,
    seed: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Iterator[bytes]:
    """Continue a prompt byte by byte: one pass over the prompt, then one step of constant cost for each byte.

    Args:
        model: pLSTMLMModel over bytes, in evaluation mode.
        prompt: at least one byte.
        length: number of bytes to add.
        device: of the model.
        seed: of the draws; None draws anew each time.
        temperature: 0 takes the most likely byte.
        top_k: draw from the k most likely bytes only.
        top_p: draw from the fewest bytes whose probabilities reach p only.

    Yields:
        One byte at a time.

    Raises:
        ValueError: if the prompt is empty or a sampling option out of range.
        FailedRunError: if the logits are infinite or no numbers.
    """
    if not prompt:
        raise ValueError("prompt: expected at least one byte, got none")
    generator = torch.Generator(device=device)
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    logits, cache = model(torch.tensor([list(prompt)], device=device), return_cache=True)
    logits = logits[:, -1]
    for position in range(length):
        if not torch.isfinite(logits).all():
            raise FailedRunError("the model predicts no byte, its logits are infinite or no numbers")
        token = sample_tokens(logits, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)
        yield bytes([int(token)])
        if position + 1 < length:
            logits, cache = model.step(token, cache)
