"""Run folders as strangers may write them, given to every command that reads one: it works, or says why in one line."""

import contextlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from damage import anything, damaged, with_bytes

_MODEL = ("--dim", 8, "--heads", 2, "--blocks", 2, "--device", "cpu", "--threads", 1, "--steps", 2)
_TEXT = b"to be, or not to be, that is the question. " * 20


@dataclass(frozen=True)
class Kind:
    """A task of the command line.

    Attributes:
        train: words that train on it, in front of `--out`.
        measure: words behind those of `eval`.
        inner: where the run lies in its folder: a cross-validation has one for each fold.
    """

    train: tuple[Any, ...]
    measure: tuple[Any, ...] = ()
    inner: str = "."


def runs(random: np.random.Generator) -> None:
    """A run folder with one or two damaged files, or files of another run."""
    name = str(random.choice(list(_kinds())))
    kind = _kinds()[name]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(shutil.copytree(_run_folder(name), Path(scratch) / "run"))
        for _ in range(random.integers(1, 3)):
            _damage(folder, kind, random)
        words: list[tuple[Any, ...]] = [("info", folder / kind.inner), ("eval", folder / kind.inner, *kind.measure)]
        words += [("eval", folder / kind.inner, *kind.measure, "--json")] if random.integers(4) == 0 else []
        words += [("generate", folder, "--length", 3, "--temperature", int(random.integers(2)))]
        words += [(*kind.train, "--out", folder, "--resume")]
        for each in (words[number] for number in range(len(words)) if random.integers(2)):
            code, output, errors = command(*each)
            assert code in (0, 1, 2), (each, errors)
            if code == 0 and "--json" in each:
                json.loads(output, parse_constant=_refuse)


TARGETS: dict[str, Callable[[np.random.Generator], None]] = {"runs": runs}


def command(*words: Any) -> tuple[int, str, str]:
    """Exit code, output and error output of a command; the latter must be one printable line where there is any."""
    from plstm_torch.cli import app

    errors, written = io.StringIO(), io.BytesIO()
    output = io.TextIOWrapper(written)
    code: Any = None
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(output):
        try:
            app([str(word) for word in words])
        except SystemExit as exit_:
            code = exit_.code
    said = errors.getvalue()
    assert said == "" or (said.endswith("\n") and said[:-1].isprintable()), said
    output.flush()
    return code, written.getvalue().decode(errors="replace"), said


def _refuse(name: str) -> None:
    raise AssertionError(f"expected JSON, got {name}")


def _damage(folder: Path, kind: Kind, random: np.random.Generator) -> None:
    places = [path for path in sorted(folder.rglob("*")) if path.suffix in (".json", ".jsonl", ".pt", ".safetensors")]
    path = places[random.integers(len(places))]
    action = random.integers(4)
    if action == 0:
        path.unlink()
    elif action == 1:
        path.write_bytes(with_bytes(path.read_bytes(), random))
    elif action == 2:
        other = str(random.choice(list(_kinds())))
        _take_from(_run_folder(other) / _kinds()[other].inner, path, random)
    elif path.suffix == ".pt":
        _damage_checkpoint(path, random)
    elif path.suffix in (".json", ".jsonl"):
        lines = [path.read_text()] if path.suffix == ".json" else path.read_text().splitlines()
        changed = [json.dumps(damaged(json.loads(line), random)) for line in lines]
        path.write_text("\n".join(changed) + "\n")


def _take_from(other: Path, path: Path, random: np.random.Generator) -> None:
    """Put the file of another run in a file's place; config and weights together, now and then."""
    names = ["config.json", "model.safetensors"] if random.integers(2) else [path.name]
    for name in names:
        if (other / name).exists():
            shutil.copy(other / name, path.parent / name)


def _damage_checkpoint(path: Path, random: np.random.Generator) -> None:
    import torch

    values = [torch.full((2,), torch.nan), torch.ones(()), torch.zeros(0), torch.ones(3, dtype=torch.int8), ()]
    state = torch.load(path, weights_only=True)
    tree = damaged(state, random)
    if isinstance(tree, dict) and tree and random.integers(2):
        parent, name = tree, str(random.choice([str(key) for key in tree]))
        while isinstance(parent.get(name), dict) and parent[name] and random.integers(3):
            parent, name = parent[name], list(parent[name])[random.integers(len(parent[name]))]
        parent[name] = values[random.integers(len(values))] if random.integers(4) else anything(random, 2)
    torch.save(tree, path)


@cache
def _kinds() -> dict[str, Kind]:
    data = Path(tempfile.mkdtemp())
    (data / "text").write_bytes(_TEXT)
    raw = data / "TOY" / "raw"
    raw.mkdir(parents=True)
    # twelve graphs, so that every fold has both classes
    for part, text in {"A": _edges(12), "graph_indicator": _owners(12), "graph_labels": "0\n1\n" * 6}.items():
        (raw / f"TOY_{part}.txt").write_text(text)
    _write_images(data / "images")
    _write_tokenizer(data / "tokenizer.json")
    (data / "edges.csv").write_text("source,target\n" + "".join(f"{node},{node + 1}\n" for node in range(11)))
    (data / "nodes.csv").write_text("id,label,size\n" + "".join(f"{n},{'ab'[n % 2]},{n}\n" for n in range(12)))
    train = {name: ("train", name) for name in ("digits", "arrows", "text", "graphs", "nodes", "images")}
    arrows = ("--train-images", 6, "--test-images", 4, "--patch-size", 8, "--size", 16, "--batch-size", 4)
    text = ("--context-length", 16, "--batch-size", 4, "--streams", 2, "--sample-length", 3)
    graphs = ("--dataset", "TOY", "--root", data, "--num-folds", 3, "--folds", 2)
    images = ("--size", 8, "--patch-size", 4, "--batch-size", 4)
    return {
        "digits": Kind((*train["digits"], *_MODEL, "--patch-size", 4, "--batch-size", 512)),
        "arrows": Kind((*train["arrows"], *_MODEL, *arrows)),
        "text": Kind((*train["text"], data / "text", *_MODEL, *text), ("--file", data / "text")),
        "tokens": Kind(
            (*train["text"], data / "text", "--tokenizer", data / "tokenizer.json", *_MODEL, *text),
            ("--file", data / "text"),
        ),
        "nodes": Kind(
            (*train["nodes"], data / "edges.csv", data / "nodes.csv", *_MODEL),
            ("--edges", data / "edges.csv", "--nodes", data / "nodes.csv"),
        ),
        "graphs": Kind((*train["graphs"], *_MODEL, *graphs), ("--root", data), "fold_1"),
        "images": Kind((*train["images"], data / "images", *_MODEL, *images), ("--root", data / "images")),
    }


def _edges(count: int) -> str:
    return "".join(f"{3 * graph + 1}, {3 * graph + 2}\n{3 * graph + 2}, {3 * graph + 3}\n" for graph in range(count))


def _owners(count: int) -> str:
    return "".join(f"{graph + 1}\n" * 3 for graph in range(count))


def _write_images(root: Path) -> None:
    from PIL import Image

    random = np.random.default_rng(0)
    for name in ("left", "right"):
        (root / name).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(random.integers(0, 255, (9, 7, 3), np.uint8)).save(root / name / f"{number}.png")


def _write_tokenizer(path: Path) -> None:
    """Bytes, and pairs of them, as tokens."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=260, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([_TEXT.decode()], trainer)
    tokenizer.save(str(path))


@cache
def _run_folder(name: str) -> Path:
    folder = Path(tempfile.mkdtemp()) / "run"
    code, _, errors = command(*_kinds()[name].train, "--out", folder)
    assert code == 0, errors
    return folder
