"""Every command: what it does, the settings that are its options, and what runs it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, make_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Union, get_args

import tyro

from plstm_torch.cli.app import PROGRAM
from plstm_torch.cli.options import Part, options_class, parse, settings_of
from plstm_torch.optional import UserError
from plstm_torch.settings import MachineSettings, commands
from plstm_torch.settings.commands import CheckSettings, FieldSettings, GraphPictureSettings
from plstm_torch.training.run_folder import RunFolder

_ABOUT = (
    "pLSTM in PyTorch: train on digits, arrows, text, images or graphs, use what was trained, check the installation."
)
_PLACE = Part(MachineSettings, only=("device", "threads"))


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        about: what it does.
        parts: its options.
        run: takes the options and the words of the command line after the command's name; returns the exit code.
    """

    about: str
    parts: dict[str, Part]
    run: Callable[[Any, Sequence[str]], int]


def _evaluate(options: Any, words: Sequence[str]) -> int:
    settings = settings_of(commands.EvaluateSettings, options.what)
    machine = settings_of(MachineSettings, options.machine)
    RunFolder(Path(settings.folder)).read_settings()  # before torch, which takes its time, is imported
    from plstm_torch.cli.use import evaluate

    return evaluate(settings, machine)


def _predict(options: Any, words: Sequence[str]) -> int:
    settings = settings_of(commands.PredictSettings, options.what)
    machine = settings_of(MachineSettings, options.machine)
    from plstm_torch.cli.predict import predict

    return predict(settings, machine)


def _generate(options: Any, words: Sequence[str]) -> int:
    settings = settings_of(commands.GenerateSettings, options.what)
    machine = settings_of(MachineSettings, options.machine)
    RunFolder(Path(settings.folder)).read_settings()
    from plstm_torch.cli.use import generate

    return generate(settings, machine)


def _check(options: Any, words: Sequence[str]) -> int:
    from plstm_torch.cli.check import check

    return check(settings_of(CheckSettings, options.what))


def _convert(options: Any, words: Sequence[str]) -> int:
    settings = settings_of(commands.ConvertSettings, options.what)
    from plstm_torch.cli.convert import convert

    return convert(settings)


def _completion(options: Any, words: Sequence[str]) -> int:
    shell = settings_of(commands.CompletionSettings, options.what).shell
    parse(_everything(), ["--tyro-print-completion", shell], prog=PROGRAM)
    return 0


def _info(options: Any, words: Sequence[str]) -> int:
    from plstm_torch.cli.info import info

    return info(settings_of(commands.InfoSettings, options.what))


def _receptive_field(options: Any, words: Sequence[str]) -> int:
    from plstm_torch.cli.show import receptive_field

    return receptive_field(settings_of(FieldSettings, options.what))


def _graph(options: Any, words: Sequence[str]) -> int:
    from plstm_torch.cli.show import graph

    return graph(settings_of(GraphPictureSettings, options.what))


_USE: dict[str, Command] = {
    "eval": Command(
        "Measure a trained model on its test data.",
        {"what": Part(commands.EvaluateSettings), "machine": _PLACE},
        _evaluate,
    ),
    "predict": Command(
        "Classify images with a trained model.",
        {"what": Part(commands.PredictSettings), "machine": _PLACE},
        _predict,
    ),
    "generate": Command(
        "Continue a prompt with a trained language model, token by token.",
        {"what": Part(commands.GenerateSettings), "machine": _PLACE},
        _generate,
    ),
    "info": Command(
        "Describe a saved model: parameters, memory, FLOPs per image or token, config.",
        {"what": Part(commands.InfoSettings)},
        _info,
    ),
    "convert": Command(
        "Write a model folder of this version from one of another version, or from weights of the original project.",
        {"what": Part(commands.ConvertSettings)},
        _convert,
    ),
    "completion": Command(
        'Print a script that lets a shell complete commands and options: eval "$(plstm-torch completion bash)".',
        {"what": Part(commands.CompletionSettings)},
        _completion,
    ),
    "check": Command(
        "Compare every op on this machine's devices and dtypes with the numpy reference; exit code 1 if one is wrong.",
        {"what": Part(CheckSettings)},
        _check,
    ),
}
_SHOW: dict[str, Command] = {
    "receptive-field": Command(
        "What a node reaches in a P and a D layer, or, with --run and --image, what a trained model attends to.",
        {"what": Part(FieldSettings)},
        _receptive_field,
    ),
    "graph": Command(
        "The signal of one node on a DAG in P- and D-mode, or, with --run and --node, what a node of your graph hears.",
        {"what": Part(GraphPictureSettings)},
        _graph,
    ),
}


def run(words: Sequence[str]) -> int:
    """Read a command line and do what it says.

    Args:
        words: of the command line.

    Returns:
        The exit code.

    Raises:
        UserError: if the words make no sense, or the command cannot do what they say.
        SystemExit: after printing help.
    """
    groups = _groups()
    first = words[0] if words else "--help"
    if first in groups:
        known, about = groups[first]
        return _choose(known, words[1:], f"{PROGRAM} {first}", about)
    if first in _USE:
        return _call(_USE[first], first, words[1:], f"{PROGRAM} {first}")
    if first in ("-h", "--help"):
        summary = {name: Command(about, {}, _check) for name, (_, about) in groups.items()}
        return _choose({**summary, **_USE}, ["--help"], PROGRAM, f"{_ABOUT} --version prints the version.")
    raise UserError(
        f"command: expected one of {', '.join((*groups, *_USE))}, got {first!r}{_similar(first, (*groups, *_USE))}"
    )


def _similar(word: str, known: Iterable[str]) -> str:
    found = get_close_matches(word, known, 1)
    return f"; did you mean {found[0]}?" if found else ""


def _groups() -> dict[str, tuple[dict[str, Command], str]]:
    """The commands that have commands of their own, and what these are about."""
    from plstm_torch.cli.train import TRAIN

    return {
        "train": (TRAIN, "Train a model. Under torchrun, several processes share each batch and give the same result."),
        "show": (_SHOW, "Draw what the layers do."),
    }


def _everything() -> Any:
    """All commands with all options as one type."""
    groups = {name: (_choice(inner), about) for name, (inner, about) in _groups().items()}
    nested = [
        Annotated[make_dataclass(name, [("command", inner)]), tyro.conf.subcommand(name, description=about)]
        for name, (inner, about) in groups.items()
    ]
    return Union[(*nested, *get_args(_choice(_USE)))]


def _choice(known: dict[str, Command]) -> Any:
    """Some commands as one type."""
    choices = [
        Annotated[
            options_class(name, command.about, command.parts), tyro.conf.subcommand(name, description=command.about)
        ]
        for name, command in known.items()
    ]
    return Union[tuple(choices)]  # noqa: UP007


def _choose(known: dict[str, Command], words: Sequence[str], prog: str, about: str) -> int:
    name = words[0] if words else ""
    if name in known:
        return _call(known[name], name, words[1:], f"{prog} {name}")
    if name not in ("-h", "--help"):
        expected = ", ".join(f"{prog} {each}" for each in known)
        raise UserError(f"command: expected one of {expected}, got {name!r}{_similar(name, known)}")
    bare = {each: Command(command.about, {}, command.run) for each, command in known.items()}
    parse(_choice(bare), ["--help"], about=about, prog=prog)
    return 0


def _call(command: Command, name: str, words: Sequence[str], prog: str) -> int:
    options = parse(options_class(name, command.about, command.parts), words, about=command.about, prog=prog)
    return command.run(options, words)
