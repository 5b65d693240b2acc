"""Text files as tokens: bytes, or those of a tokenizer of Hugging Face's library."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from plstm_testing.datasets.text import VOCABULARY
from plstm_torch.optional import UserError, require
from plstm_torch.settings import TextSettings

_LARGEST_TOKENIZER = 2**28  # bytes


@dataclass(frozen=True)
class Part:
    """A piece of the text.

    Attributes:
        tokens: [N] integers.
        num_bytes: its length before it became tokens.
    """

    tokens: Int[ndarray, " N"]
    num_bytes: int


@dataclass(frozen=True)
class Corpus:
    """A text, cut into what is trained on, what chooses the epoch and what is measured, in this order.

    Attributes:
        train: the beginning.
        validation: what follows; None if nothing chooses the epoch.
        test: the tail.
        vocabulary: number of tokens that there are.
        digest: SHA-256 of files and tokenizer, to notice that they changed between two runs.
        tokenizer: of the tokens; None for bytes.
    """

    train: Part
    validation: Part | None
    test: Part
    vocabulary: int
    digest: str
    tokenizer: Any = None


def load_corpus(settings: TextSettings) -> Corpus:
    """Read the files one after the other and cut them.

    Args:
        settings: files, tokenizer and shares.

    Returns:
        The text.

    Raises:
        UserError: if a file cannot be read or is no text, the package tokenizers is missing, or the text is too short
            for one training window and one byte of each other part.
    """
    data = b"".join(_read(Path(file)) for file in settings.files)
    digest, tokenizer = hashlib.sha256(data), None
    if settings.tokenizer is not None:
        tokenizer = read_tokenizer(Path(settings.tokenizer))
        digest.update(tokenizer.to_str().encode())
    end = _character(data, len(data) - max(1, int(len(data) * settings.held_out)))
    begin = _character(data, end - max(1, int(end * settings.validation))) if settings.validation else end
    pieces = (data[: max(begin, 0)], data[max(begin, 0) : end], data[end:])
    train, validation, test = (Part(encode(piece, tokenizer), len(piece)) for piece in pieces)
    if len(train.tokens) <= settings.context_length or not len(test.tokens):
        unit = "bytes" if tokenizer is None else "tokens"
        raise UserError(
            f"{', '.join(settings.files)}: expected at least {settings.context_length + 1} {unit} for training, for a"
            f" context length of {settings.context_length}, got {len(train.tokens)} of {len(data)} bytes in all"
        )
    chooses = validation if len(validation.tokens) else None
    return Corpus(train, chooses, test, num_tokens(tokenizer), digest.hexdigest(), tokenizer)


def num_tokens(tokenizer: Any) -> int:
    """The number of tokens that there are: those of a tokenizer, or the bytes if it is None."""
    return VOCABULARY if tokenizer is None else int(tokenizer.get_vocab_size())


def read_tokenizer(path: Path) -> Any:
    """Read a tokenizer.json, which holds data: no code of a stranger runs.

    Args:
        path: the file.

    Returns:
        A `tokenizers.Tokenizer`.

    Raises:
        UserError: if the package is missing, or the file cannot be read or is no tokenizer.
    """
    library = require("tokenizers", "tokenizers", extra="tokenizers")
    try:
        return library.Tokenizer.from_str(_read(path, _LARGEST_TOKENIZER).decode("utf-8"))
    except UserError:
        raise
    except Exception as error:  # the library raises plain exceptions
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"tokenizer: expected a tokenizer.json of Hugging Face, got {path}: {reason}") from error


def encode(text: bytes, tokenizer: Any) -> Int[ndarray, " N"]:
    """Turn text into tokens.

    Args:
        text: UTF-8, or any bytes without a tokenizer.
        tokenizer: of the tokens; None for bytes.

    Returns:
        The tokens, without special ones.

    Raises:
        UserError: if the tokenizer needs text and gets something else.
    """
    if tokenizer is None:
        return np.frombuffer(text, dtype=np.uint8)
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"tokenizer: expected text in UTF-8, got bytes that are none ({error})") from error
    return np.array(tokenizer.encode(decoded, add_special_tokens=False).ids, np.int64)


def decode(tokens: Sequence[int], tokenizer: Any) -> str:
    """Turn tokens into text.

    Args:
        tokens: of the vocabulary.
        tokenizer: of the tokens; None for bytes.

    Returns:
        The text.
    """
    if tokenizer is None:
        return bytes(tokens).decode("utf-8", errors="replace")
    text: str = tokenizer.decode(list(tokens), skip_special_tokens=False)
    return text


def as_text(tokens: Iterable[int], tokenizer: Any) -> Iterator[bytes]:
    """Turn a stream of tokens into pieces of text as they become whole.

    Args:
        tokens: one after the other.
        tokenizer: of the tokens; None for bytes.

    Yields:
        UTF-8, or single bytes without a tokenizer.
    """
    if tokenizer is None:
        yield from (bytes([token]) for token in tokens)
        return
    stream = require("tokenizers.decoders", "tokenizers", extra="tokenizers").DecodeStream(skip_special_tokens=False)
    for token in tokens:
        yield (stream.step(tokenizer, token) or "").encode()


def with_places(settings: TextSettings, digest: str) -> TextSettings:
    """Note where the files are, whatever the folder that a later command is called in.

    Args:
        settings: of a run.
        digest: of its files.

    Returns:
        Settings with whole paths.
    """
    files = tuple(str(Path(file).resolve()) for file in settings.files)
    tokenizer = None if settings.tokenizer is None else str(Path(settings.tokenizer).resolve())
    return replace(settings, digest=digest, files=files, tokenizer=tokenizer)


def _read(path: Path, limit: int | None = None) -> bytes:
    try:
        if limit is not None and path.stat().st_size > limit:
            raise UserError(f"tokenizer: expected at most {limit} bytes, got {path} of {path.stat().st_size}")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def _character(data: bytes, place: int) -> int:
    """The next place at which no character of UTF-8 is cut; any place will do in other bytes."""
    moved = max(0, place)
    while moved < min(len(data), place + 3) and data[moved] & 0xC0 == 0x80:
        moved += 1
    return moved
