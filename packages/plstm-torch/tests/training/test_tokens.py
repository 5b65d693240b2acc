"""Text as tokens of Hugging Face's tokenizers, and text in several files."""

import json
import math

import pytest
import tokenizers
import torch
from lightning_fabric import Fabric

from plstm_torch.cli import app
from plstm_torch.optional import UserError
from plstm_torch.settings import TextSettings
from plstm_torch.training.corpus import as_text, decode, load_corpus
from plstm_torch.training.distributed import World
from plstm_torch.training.tasks import open_task

TINY = {"context_length": 8, "dim": 16, "num_heads": 2, "num_blocks": 1, "streams": 2, "sample_length": 12}
WORDS = [
    "--dim",
    "16",
    "--heads",
    "2",
    "--blocks",
    "1",
    "--context-length",
    "8",
    "--batch-size",
    "8",
    "--device",
    "cpu",
]
TEXT = "über den Fluß fährt ein Schiff, the quick brown fox jumps over it. " * 30


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory):
    """A byte-level BPE of 300 tokens, trained here."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture
def text_files(tmp_path):
    paths = [tmp_path / name for name in ("a.txt", "b.txt")]
    half = len(TEXT) // 2
    for path, part in zip(paths, (TEXT[:half], TEXT[half:]), strict=True):
        path.write_text(part, encoding="utf-8")
    return [str(path) for path in paths]


@pytest.mark.parametrize("tokenized", [False, True])
def test_files_are_cut_into_three_parts_in_their_order(text_files, tokenizer_file, tokenized):
    name = str(tokenizer_file) if tokenized else None
    corpus = load_corpus(TextSettings(files=tuple(text_files), tokenizer=name, context_length=8))
    parts = (corpus.train, corpus.validation, corpus.test)
    assert "".join(decode(part.tokens.tolist(), corpus.tokenizer) for part in parts) == TEXT
    size = len(TEXT.encode())
    assert sum(part.num_bytes for part in parts) == size
    assert corpus.test.num_bytes == pytest.approx(0.1 * size, abs=4)
    assert corpus.validation.num_bytes == pytest.approx(0.05 * 0.9 * size, abs=4)
    assert corpus.vocabulary == (300 if tokenized else 256)


def test_without_validation_the_rest_is_trained_on(text_files):
    corpus = load_corpus(TextSettings(files=tuple(text_files), validation=0.0))
    assert corpus.validation is None
    assert corpus.train.num_bytes + corpus.test.num_bytes == len(TEXT.encode())


def test_bits_per_byte_do_not_depend_on_how_long_tokens_are(text_files, tokenizer_file):
    task = open_task("text", {"files": text_files, "tokenizer": str(tokenizer_file), **TINY}, 0)
    model = task.build_model("float64").eval()
    with torch.no_grad():
        model.lm_head.weight.zero_()  # all tokens equally likely
        measured = task.evaluate(model, World(Fabric(accelerator="cpu", devices=1)), "test")
    part = task.corpus.test
    assert measured["test_loss"] == pytest.approx(math.log(300))
    assert measured["test_bits_per_byte"] == pytest.approx(math.log2(300) * len(part.tokens) / part.num_bytes)


def test_a_stream_of_tokens_becomes_text_when_characters_are_whole(tokenizer_file, text_files):
    corpus = load_corpus(TextSettings(files=tuple(text_files), tokenizer=str(tokenizer_file), context_length=8))
    tokens = corpus.test.tokens.tolist()
    assert b"".join(as_text(tokens, corpus.tokenizer)).decode() == decode(tokens, corpus.tokenizer)
    assert list(as_text([65, 66], None)) == [b"A", b"B"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"cannot read .*t\.json: No such file"),
        (b"{}", r"tokenizer: expected a tokenizer\.json of Hugging Face, got .*t\.json"),
        (b"\xff", r"tokenizer: expected a tokenizer\.json of Hugging Face, got .*t\.json"),
    ],
)
def test_what_is_no_tokenizer_is_one_line(text_files, tmp_path, content, message):
    path = tmp_path / "t.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_corpus(TextSettings(files=tuple(text_files), tokenizer=str(path)))


def test_bytes_that_are_no_text_have_no_tokens(tmp_path, tokenizer_file):
    path = tmp_path / "binary"
    path.write_bytes(bytes(range(256)) * 10)
    with pytest.raises(UserError, match="tokenizer: expected text in UTF-8, got bytes that are none"):
        load_corpus(TextSettings(files=(str(path),), tokenizer=str(tokenizer_file)))
    assert load_corpus(TextSettings(files=(str(path),))).train.num_bytes > 2000


def run(*words):
    with pytest.raises(SystemExit) as stopped:
        app([str(word) for word in words])
    return stopped.value.code


def test_a_tokenized_run_is_trained_measured_continued_and_resumed(text_files, tokenizer_file, tmp_path, capfdbinary):
    out = tmp_path / "run"
    words = ("train", "text", *text_files, "--tokenizer", tokenizer_file, *WORDS, "--out", out, "--sample-length", 9)
    assert run(*words, "--epochs", 1) == 0
    assert (out / "tokenizer.json").exists()
    assert json.loads((out / "config.json").read_text())["config"]["vocab_size"] == 300
    summary = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    capfdbinary.readouterr()
    assert run("eval", out, "--device", "cpu", "--json", "--file", text_files[0], "--file", text_files[1]) == 0
    measured = json.loads(capfdbinary.readouterr().out)
    assert measured["test_bits_per_byte"] == pytest.approx(summary["test_bits_per_byte"], rel=1e-6)
    assert run("generate", out, "--prompt", "fährt", "--length", 8, "--seed", 1, "--device", "cpu") == 0
    assert capfdbinary.readouterr().out.decode().startswith("fährt")
    assert run(*words, "--resume", "--epochs", 1) == 0
    assert run("train", "text", *text_files, *WORDS, "--out", out, "--resume", "--epochs", 1) == 2
    assert b"is not the text that this run began with (it or its tokenizer has changed)" in capfdbinary.readouterr().err
