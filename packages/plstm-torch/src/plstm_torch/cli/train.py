"""`plstm-torch train`: a command for each task, and how their options become the settings of a run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plstm_torch.cli.app import PROGRAM
from plstm_torch.cli.commands import Command
from plstm_torch.cli.options import Part, options_class, parse, settings_of, start
from plstm_torch.optional import UserError
from plstm_torch.settings import (
    ARROW_PRESETS,
    DIGITS_TRAINING,
    GRAPHS_TRAINING,
    IMAGES_TRAINING,
    NODES_TRAINING,
    TASK_SETTINGS,
    TEXT_TRAINING,
    ArrowsSettings,
    MachineSettings,
    RunSettings,
    Settings,
    TrainingSettings,
    from_mapping,
)
from plstm_torch.settings.commands import FolderSettings, FoldsSettings, PresetSettings, SingleRunSettings
from plstm_torch.training.run_folder import RunFolder

if TYPE_CHECKING:
    from plstm_torch.cli.launch import Request


@dataclass(frozen=True)
class Task:
    """The command of a task.

    Attributes:
        name: of the task.
        about: what it does.
        folder: where a run lives unless told otherwise.
        training: training settings unless told otherwise.
        data: data settings unless told otherwise; None: the defaults of their class.
    """

    name: str
    about: str
    folder: FolderSettings
    training: TrainingSettings
    data: Settings | None = None

    def parts(self) -> dict[str, Part]:
        """The options."""
        return {
            "folder": Part(type(self.folder), self.folder),
            "data": Part(TASK_SETTINGS[self.name], self.data),
            "training": Part(TrainingSettings, self.training),
            "machine": Part(MachineSettings),
        }


_TASKS = (
    Task(
        "digits",
        "Handwritten digits: 1,797 real images of 8 x 8 pixels that come with scikit-learn.",
        SingleRunSettings(out="runs/digits"),
        DIGITS_TRAINING,
    ),
    Task(
        "arrows",
        "Arrow pointing: does the arrow point at the circle? Tested at the training size and at twice that.",
        PresetSettings(),
        ARROW_PRESETS["quick"][1],
        ARROW_PRESETS["quick"][0],
    ),
    Task(
        "text",
        "A language model of text files, over bytes or a tokenizer's tokens: bits per byte of the tail, a sample.",
        SingleRunSettings(out="runs/text"),
        TEXT_TRAINING,
    ),
    Task(
        "graphs",
        "Graph classification, cross-validated: the test accuracy at the epoch of the best validation, over folds.",
        FoldsSettings(),
        GRAPHS_TRAINING,
    ),
    Task(
        "nodes",
        "Node classification on a graph of your own: a CSV file of edges, and one of nodes with their labels.",
        SingleRunSettings(out="runs/nodes"),
        NODES_TRAINING,
    ),
    Task(
        "images",
        "Your own images: ROOT/CLASS/*, or ROOT/train/CLASS/* beside ROOT/val/CLASS/*, ROOT/test/CLASS/* or both.",
        SingleRunSettings(out="runs/images"),
        IMAGES_TRAINING,
    ),
)


def _run(task: Task, options: Any, words: Sequence[str]) -> int:
    folder = settings_of(type(task.folder), options.folder)
    extend = folder.extend if isinstance(folder, SingleRunSettings) else None
    goes_on = folder.resume or extend is not None
    if goes_on and folder.overwrite:
        raise UserError(f"--{'resume' if folder.resume else 'extend'} and --overwrite exclude each other")
    if folder.resume and extend is not None:
        raise UserError("--resume and --extend exclude each other: one continues a run to its end, the other beyond it")
    request = _resumed(task, folder, options, words) if goes_on else _new(task, folder, options, words)
    from plstm_torch.cli.launch import launch, launch_cross_validation

    return launch_cross_validation(request) if isinstance(folder, FoldsSettings) else launch(request)


def _new(task: Task, folder: FolderSettings, options: Any, words: Sequence[str]) -> "Request":
    RunFolder(Path(folder.out)).check_new(overwrite=folder.overwrite)  # before torch, which takes its time, is imported
    base, training = task.data, task.training
    if isinstance(folder, PresetSettings):
        base, training = ARROW_PRESETS[folder.preset]
        options = _parse_again(task, words, base, training, MachineSettings())
    if isinstance(base, ArrowsSettings):
        options = replace(options, data=_follow_size(base, options.data))
    settings = RunSettings(
        task=task.name,
        data=asdict(settings_of(TASK_SETTINGS[task.name], options.data, base)),
        training=settings_of(TrainingSettings, options.training, training),
        machine=settings_of(MachineSettings, options.machine),
    )
    return _request(folder, settings)


def _resumed(task: Task, folder: FolderSettings, options: Any, words: Sequence[str]) -> "Request":
    """Take the stored settings; what the command line says of the data and the training has to agree with them.

    Where the data lie is taken from the command line alone, since a run folder may come from a stranger.
    """
    stored = RunFolder(Path(folder.out)).read_settings()
    if stored.task != task.name:
        raise UserError(f"{folder.out} holds a run of {stored.task!r}, not of {task.name!r}")
    cls = TASK_SETTINGS[task.name]
    place = {name: getattr(options.data, name) for name in cls.locations}
    if "init_from" in stored.data:  # a resumed run begins with its checkpoint
        place["init_from"] = None
    try:
        data = from_mapping(cls, {**stored.data, **place})
    except (TypeError, ValueError) as error:
        raise UserError(f"cannot read {folder.out}/training.json: data.{error}") from error
    options = _parse_again(task, words, data, stored.training, stored.machine)
    for given, kept in ((options.data, data), (options.training, stored.training)):
        for entry in fields(given):
            value, own = getattr(given, entry.name), getattr(kept, entry.name)
            if value != own:
                raise UserError(
                    f"{entry.name}: expected {own!r}, since a resumed run keeps its settings, got {value!r}"
                )
    machine = settings_of(MachineSettings, options.machine)
    return _request(folder, replace(stored, data=asdict(data), machine=machine))


def _parse_again(
    task: Task,
    words: Sequence[str],
    data: Settings,
    training: TrainingSettings,
    machine: MachineSettings,
) -> Any:
    """Read the command line once more with other defaults, so that options that are not given have their values."""
    cls = options_class(task.name, task.about, task.parts())
    own = {entry.name: entry.default for entry in fields(cls)}
    values: Mapping[str, Any] = {"folder": task.folder, "data": data, "training": training, "machine": machine}
    default = cls(**{name: start(type(own[name]), Part(type(value), value)) for name, value in values.items()})
    return parse(cls, words, prog=f"{PROGRAM} train {task.name}", default=default)


def _follow_size(base: ArrowsSettings, options: Any) -> Any:
    """Let the other sizes follow --size, unless they are given."""
    if options.image_size == base.image_size or options.patch_size < 1 or options.image_size < 1:
        return options
    around = base.sizes_around(options.image_size, options.patch_size)
    kept = {name: size for name, size in around.items() if getattr(options, name) == getattr(base, name)}
    return replace(options, **kept)


def _request(folder: FolderSettings, settings: RunSettings) -> "Request":
    from plstm_torch.cli.launch import Request

    folds = folder.folds if isinstance(folder, FoldsSettings) else None
    extend = folder.extend if isinstance(folder, SingleRunSettings) else None
    goes_on = folder.resume or extend is not None
    return Request(settings, Path(folder.out), goes_on, folder.overwrite, extend, folds)


def _command(task: Task) -> Command:
    run: Callable[[Any, Sequence[str]], int] = partial(_run, task)
    return Command(task.about, task.parts(), run)


TRAIN: dict[str, Command] = {task.name: _command(task) for task in _TASKS}
