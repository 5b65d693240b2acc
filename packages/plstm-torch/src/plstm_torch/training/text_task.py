"""The language model on text files."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor, nn

from plstm_testing.datasets.text import (
    VOCABULARY,
    ByteText,
    Streams,
    evaluation_streams,
    training_windows,
    windows_per_epoch,
)
from plstm_torch.generation import sample_tokens
from plstm_torch.optional import FailedRunError, UserError
from plstm_torch.settings import TextSettings
from plstm_torch.training import plots
from plstm_torch.training.corpus import Part, decode, load_corpus, with_places
from plstm_torch.training.distributed import World
from plstm_torch.training.model_configs import text_config
from plstm_torch.training.model_task import PREFIX, ModelTask, described_split
from plstm_torch.training.order import Batch
from plstm_torch.training.run_folder import EXAMPLES_FILE, SAMPLE_FILE, TOKENIZER_FILE, RunFolder
from plstm_torch.training.task import Split

_EVALUATION_CHUNK = 512
_HEAT_BYTES = 1008


class TextTask(ModelTask):
    """Predicts each token of a text from those before it."""

    name = "text"
    measure = "bits_per_byte"
    more_is_better = False
    settings: TextSettings

    def __init__(self, settings: TextSettings, seed: int) -> None:
        """Read the text.

        Args:
            settings: text and model.
            seed: of the run.

        Raises:
            UserError: if the text cannot be read, is too short or is no longer the one that the run began with.
            ValueError: if the model's sizes are impossible.
        """
        text_config(settings, VOCABULARY, "float32")  # finds impossible sizes before the text is read
        self.corpus = load_corpus(settings)
        if settings.digest and settings.digest != self.corpus.digest:
            named = ", ".join(settings.files)
            raise UserError(f"{named} is not the text that this run began with (it or its tokenizer has changed)")
        self.settings, self.seed = with_places(settings, self.corpus.digest), seed
        self.held_out = {"test": self._streams(self.corpus.test)}
        if self.corpus.validation is not None:
            self.held_out["validation"] = self._streams(self.corpus.validation)

    def _before(self, part: Part) -> ndarray:
        """What precedes a part of the text, to read before it."""
        before = [self.corpus.train, self.corpus.validation] if part is self.corpus.test else [self.corpus.train]
        return np.concatenate([each.tokens for each in before if each is not None])

    def _streams(self, part: Part) -> Streams:
        text = ByteText(self._before(part), part.tokens, self.corpus.digest)
        return evaluation_streams(text, streams=self.settings.streams, warm_up=self.settings.context_length)

    @property
    def num_samples(self) -> int:
        """Windows in an epoch."""
        length = len(self.corpus.train.tokens)
        return min(windows_per_epoch(length, self.settings.context_length), self.settings.epoch_windows)

    @property
    def predictions_per_sample(self) -> int:
        """Tokens in a window."""
        return self.settings.context_length

    def batch(self, epoch: int, indices: Sequence[int]) -> Batch:
        """Return windows and the tokens that follow each of theirs."""
        context = self.settings.context_length
        available = windows_per_epoch(len(self.corpus.train.tokens), context)
        # where an epoch is shorter than the text, successive epochs go on where the last one stopped
        windows = [(index + epoch * self.num_samples) % available for index in indices]
        cut = training_windows(self.corpus.train.tokens, windows, context_length=context, seed=self.seed, epoch=epoch)
        return torch.from_numpy(cut[0]), torch.from_numpy(cut[1])

    def model_config(self, dtype: str) -> Any:
        """Return the model's config."""
        return text_config(self.settings, self.corpus.vocabulary, dtype)

    def describe(self) -> str:
        """How much text there is."""
        corpus = self.corpus
        sizes = [0 if part is None else len(part.tokens) for part in (corpus.train, corpus.validation, corpus.test)]
        return described_split("bytes" if corpus.tokenizer is None else f"tokens of {corpus.vocabulary:,}", *sizes)

    def evaluate(self, model: nn.Module, world: World, split: Split) -> dict[str, float]:
        """Return the mean loss of a token and the bits per byte of all the text; see `Task.evaluate`."""
        part = self.corpus.validation if split == "validation" else self.corpus.test
        if part is None:
            return {}
        streams = self.held_out[split]
        rows = list(world.share.of(range(len(streams.values))))
        sums = {"loss": 0.0, "count": 0.0}
        if rows:
            values, counts = (torch.from_numpy(each[rows]) for each in (streams.values, streams.counts))
            for losses, counted in stream_losses(model, values, counts, world.device):
                sums["loss"] += losses[counted].to(torch.float64).sum().item()
                sums["count"] += counted.sum().item()
        total = world.sum(sums)
        prefix, bits = PREFIX[split], total["loss"] / math.log(2)
        return {f"{prefix}_loss": total["loss"] / total["count"], f"{prefix}_bits_per_byte": bits / part.num_bytes}

    def save_model(self, model: nn.Module, folder: Path) -> None:
        """Write config.json and model.safetensors into a folder, and the tokenizer beside them."""
        super().save_model(model, folder)
        if self.corpus.tokenizer is not None:
            RunFolder(folder).save_text(TOKENIZER_FILE, self.corpus.tokenizer.to_str())

    def finish(self, model: nn.Module, device: torch.device, folder: RunFolder) -> None:
        """Write a sample that continues the training text, and draw what the first bytes of the tail cost.

        Tokens of several bytes are not drawn; see `Task.finish`.
        """
        model.eval()
        tokenizer, prompt = self.corpus.tokenizer, self.corpus.train.tokens[-64:].tolist()
        sample = sample_stream(model, prompt, self.settings.sample_length, device=device, seed=self.seed)
        folder.save_text(SAMPLE_FILE, decode([*prompt, *sample], tokenizer))
        if tokenizer is not None:
            return
        before, tail = self._before(self.corpus.test), self.corpus.test.tokens[:_HEAT_BYTES]
        warm_up = min(len(before), self.settings.context_length)
        first = torch.from_numpy(np.concatenate([before[-warm_up:], tail]).astype(np.int64))[None]
        counts = (torch.arange(first.shape[1]) >= warm_up)[None]
        with torch.no_grad():
            losses = torch.cat([part[counted] for part, counted in stream_losses(model, first, counts, device)])
        bits = (losses.to(torch.float64) / math.log(2)).numpy()
        folder.save_picture(EXAMPLES_FILE, plots.text_heat(bytes(tail.tolist()), np.asarray(bits)).savefig)


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
def sample_stream(
    model: Any,
    prompt: Sequence[int],
    length: int,
    *,
    device: torch.device,
    seed: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Iterator[int]:
    """Continue a prompt token by token: one pass over the prompt, then one step of constant cost for each token.

    Args:
        model: pLSTMLMModel, in evaluation mode.
        prompt: at least one token.
        length: number of tokens to add.
        device: of the model.
        seed: of the draws; None draws anew each time.
        temperature: 0 takes the most likely token.
        top_k: draw from the k most likely tokens only.
        top_p: draw from the fewest tokens whose probabilities reach p only.

    Yields:
        One token at a time.

    Raises:
        ValueError: if the prompt is empty or a sampling option out of range.
        FailedRunError: if the logits are infinite or no numbers.
    """
    if not prompt:
        raise ValueError("prompt: expected at least one token, got none")
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
        yield int(token)
        if position + 1 < length:
            logits, cache = model.step(token, cache)
