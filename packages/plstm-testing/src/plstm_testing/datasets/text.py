"""Any text file as bytes: a head for training, a tail that the model never sees in training."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, Integer
from numpy import ndarray

from plstm_testing.datasets.errors import DatasetError
from plstm_testing.datasets.random_numbers import derive_seed

VOCABULARY = 256


@dataclass(frozen=True)
class ByteText:
    """A text, cut into head and tail.

    Attributes:
        head: [N] integers, uint8 for bytes, for training.
        tail: [M] integers, held out.
        digest: SHA-256 of the whole file, to notice that it changed between two runs.
    """

    head: Integer[ndarray, " N"]
    tail: Integer[ndarray, " M"]
    digest: str


def load_text(path: Path, *, context_length: int, held_out: float) -> ByteText:
    """Read a file and cut off its tail.

    Args:
        path: the file; any bytes will do.
        context_length: bytes in a training window.
        held_out: share of the file that becomes the tail, between 0 and 1.

    Returns:
        Head and tail.

    Raises:
        DatasetError: if the file cannot be read or is too short for one training window and one held-out byte.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from plstm_testing.datasets import load_text
        >>> path = Path(tempfile.mkdtemp(), "text.txt")
        >>> _ = path.write_text("to be or not to be " * 50)
        >>> text = load_text(path, held_out=0.1, context_length=16)
        >>> text.head.shape, text.tail.shape
        ((855,), (95,))
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}") from error
    tail_length = max(1, int(len(data) * held_out))
    head_length = len(data) - tail_length
    if head_length < context_length + 1:
        needed = context_length + 1
        raise DatasetError(
            f"{path} has {len(data)} bytes, which leaves {max(head_length, 0)} for training;"
            f" a context length of {context_length} needs at least {needed}"
        )
    values = np.frombuffer(data, dtype=np.uint8)
    return ByteText(values[:head_length], values[head_length:], hashlib.sha256(data).hexdigest())


def windows_per_epoch(length: int, context_length: int) -> int:
    """Count the windows of an epoch: the most that fit whatever offset the epoch starts at.

    Args:
        length: bytes in the head.
        context_length: bytes in a window.

    Returns:
        At least 1.
    """
    return max(1, (length - context_length) // context_length)


def training_windows(
    head: Integer[ndarray, " N"], indices: Sequence[int], *, context_length: int, seed: int, epoch: int
) -> tuple[Int[ndarray, "B T"], Int[ndarray, "B T"]]:
    """Cut windows out of the head; each epoch starts the row of windows at another offset.

    Args:
        head: [N] integers, such as bytes or tokens.
        indices: which windows.
        context_length: T, bytes in a window.
        seed: seed of the run.
        epoch: which epoch.

    Returns:
        Inputs [B, T] and targets [B, T], int64: each target is the byte after its input.
    """
    room = len(head) - 1 - windows_per_epoch(len(head), context_length) * context_length
    offset = derive_seed(seed, epoch) % (min(room, context_length - 1) + 1)
    start = np.asarray(indices, np.int64)[:, None] * context_length + offset
    windows = head[start + np.arange(context_length + 1)].astype(np.int64)
    return windows[:, :-1], windows[:, 1:]


@dataclass(frozen=True)
class Streams:
    """A text cut into equal pieces that are read side by side.

    Attributes:
        values: [S, W + L] int64, each row W bytes of what came before and then L bytes of its own piece.
        counts: [S, W + L] bool, which bytes of a row are to be predicted (each byte of the text once).
    """

    values: Int[ndarray, "S L"]
    counts: Bool[ndarray, "S L"]


def evaluation_streams(text: ByteText, *, streams: int, warm_up: int) -> Streams:
    """Cut the tail into rows, each preceded by the bytes before it, so that no byte is predicted from nothing.

    Args:
        text: head and tail.
        streams: number of rows S.
        warm_up: bytes W read before the first predicted byte of a row, at most the length of the head.

    Returns:
        The rows; together their counted bytes are the tail, each byte once.
    """
    warm_up = max(1, min(warm_up, len(text.head)))
    streams = min(streams, len(text.tail))
    length = -(-len(text.tail) // streams)
    context = np.concatenate([text.head[len(text.head) - warm_up :], text.tail]).astype(np.int64)
    position = np.arange(streams)[:, None] * length + np.arange(warm_up + length)
    counts = (np.arange(warm_up + length) >= warm_up) & (position < len(context))
    return Streams(context[np.minimum(position, len(context) - 1)], counts)
