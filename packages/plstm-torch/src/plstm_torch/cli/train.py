"""`plstm-torch train`: four tasks, one command each."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from plstm_torch.cli import options as o
from plstm_torch.cli.launch import Request, given, launch, launch_cross_validation
from plstm_torch.optional import UserError
from plstm_torch.training.graph_task import GRAPHS_TRAINING, GraphsSettings
from plstm_torch.training.image_tasks import ARROW_PRESETS, DIGITS_TRAINING, DigitsSettings
from plstm_torch.training.text_task import TEXT_TRAINING

app = typer.Typer(
    help="Train a model. Under torchrun, several processes share each batch and give the same result.",
    pretty_exceptions_enable=False,
)


@app.command()
def digits(
    out: o.Out = Path("runs/digits"),
    resume: o.Resume = False,
    overwrite: o.Overwrite = False,
    epochs: o.Epochs = None,
    steps: o.Steps = None,
    batch_size: o.BatchSize = None,
    learning_rate: o.LearningRate = None,
    warmup_epochs: o.WarmupEpochs = None,
    weight_decay: o.WeightDecay = None,
    gradient_clip: o.GradientClip = None,
    seed: o.Seed = None,
    dtype: o.Dtype = None,
    device: o.Device = None,
    threads: o.Threads = None,
    workers: o.Workers = None,
    checkpoint_every: o.CheckpointEvery = None,
    patch_size: o.PatchSize = None,
    dim: o.Dim = None,
    num_heads: o.NumHeads = None,
    num_blocks: o.NumBlocks = None,
    drop_path_rate: o.DropPath = None,
    distort: Annotated[bool | None, typer.Option(help="Shift, turn and scale training images a little.")] = None,
) -> None:
    """Handwritten digits: 1,797 real images of 8 x 8 pixels that come with scikit-learn."""
    request = _request("digits", locals(), data=("distort", *_VISION))
    launch(request, asdict(DigitsSettings()), DIGITS_TRAINING)


@app.command()
def arrows(
    preset: Annotated[
        str, typer.Option(help="quick (32 -> 64 pixels, minutes), mixed (also smaller images) or paper (192 -> 384).")
    ] = "quick",
    out: o.Out = Path("runs/arrows"),
    resume: o.Resume = False,
    overwrite: o.Overwrite = False,
    epochs: o.Epochs = None,
    steps: o.Steps = None,
    batch_size: o.BatchSize = None,
    learning_rate: o.LearningRate = None,
    warmup_epochs: o.WarmupEpochs = None,
    weight_decay: o.WeightDecay = None,
    gradient_clip: o.GradientClip = None,
    seed: o.Seed = None,
    dtype: o.Dtype = None,
    device: o.Device = None,
    threads: o.Threads = None,
    workers: o.Workers = None,
    checkpoint_every: o.CheckpointEvery = None,
    patch_size: o.PatchSize = None,
    dim: o.Dim = None,
    num_heads: o.NumHeads = None,
    num_blocks: o.NumBlocks = None,
    drop_path_rate: o.DropPath = None,
    image_size: Annotated[
        int | None, typer.Option("--size", help="Side of the largest training images; tests also at twice that.")
    ] = None,
    train_images: Annotated[int | None, typer.Option(help="Number of training images.")] = None,
    test_images: Annotated[int | None, typer.Option(help="Number of test images of each size.")] = None,
    data_seed: Annotated[int | None, typer.Option(help="Of the images.")] = None,
    palette: Annotated[str | None, typer.Option(help="mono or color.")] = None,
    scaling: Annotated[
        str | None, typer.Option(help="Larger images: keep objects' size in 'pixels', or 'relative' to the image.")
    ] = None,
    mirror: Annotated[bool | None, typer.Option(help="Mirror and turn training images.")] = None,
) -> None:
    """Arrow pointing: does the arrow point at the circle? Tested at the training size and at twice that."""
    if preset not in ARROW_PRESETS:
        raise UserError(f"--preset {preset!r}: expected one of {', '.join(ARROW_PRESETS)}")
    data, training = ARROW_PRESETS[preset]
    names = ("image_size", "train_images", "test_images", "data_seed", "palette", "scaling", "mirror", *_VISION)
    # a resumed run has its own, and `image_size` is compared with them in any case
    sizes = {} if image_size is None or resume else data.sizes_around(image_size, patch_size)
    request = _request("arrows", {**locals(), **sizes}, data=(*sizes, *names))
    launch(request, asdict(data), training)


@app.command()
def text(
    file: Annotated[Path, typer.Argument(help="Any text file; it is read as bytes.")],
    out: o.Out = Path("runs/text"),
    resume: o.Resume = False,
    overwrite: o.Overwrite = False,
    epochs: o.Epochs = None,
    steps: o.Steps = None,
    batch_size: o.BatchSize = None,
    learning_rate: o.LearningRate = None,
    warmup_epochs: o.WarmupEpochs = None,
    weight_decay: o.WeightDecay = None,
    gradient_clip: o.GradientClip = None,
    seed: o.Seed = None,
    dtype: o.Dtype = None,
    device: o.Device = None,
    threads: o.Threads = None,
    workers: o.Workers = None,
    checkpoint_every: o.CheckpointEvery = None,
    dim: o.Dim = None,
    num_heads: o.NumHeads = None,
    num_blocks: o.NumBlocks = None,
    state_size: Annotated[int | None, typer.Option(help="JT = JV = JO; more than 1 tracks states.")] = None,
    context_length: Annotated[int | None, typer.Option(help="Bytes in a training window.")] = None,
    held_out: Annotated[float | None, typer.Option(help="Share of the file that is held out at its end.")] = None,
    epoch_windows: Annotated[int | None, typer.Option(help="Most windows in an epoch.")] = None,
    sample_length: Annotated[int | None, typer.Option(help="Bytes that are generated at the end.")] = None,
) -> None:
    """A byte-level language model of a text file: bits per byte on its held-out tail, then a sample."""
    names = ("state_size", "context_length", "held_out", "epoch_windows", "sample_length")
    data = ("file", "dim", "num_heads", "num_blocks", *names)
    request = _request("text", {**locals(), "file": str(file.resolve())}, data=data)
    launch(request, {}, TEXT_TRAINING)
    _print_sample(out)


@app.command()
def graphs(
    dataset: Annotated[str, typer.Option(help="Name in the TUDataset collection.")] = "MUTAG",
    root: Annotated[Path, typer.Option(help="Folder of the datasets; what is missing is downloaded.")] = Path(
        "data/TUDataset"
    ),
    folds: Annotated[int | None, typer.Option(help="How many of the folds are run; all of them if not given.")] = None,
    out: o.Out = Path("runs/graphs"),
    resume: o.Resume = False,
    overwrite: o.Overwrite = False,
    epochs: o.Epochs = None,
    steps: o.Steps = None,
    batch_size: o.BatchSize = None,
    learning_rate: o.LearningRate = None,
    warmup_epochs: o.WarmupEpochs = None,
    weight_decay: o.WeightDecay = None,
    gradient_clip: o.GradientClip = None,
    seed: o.Seed = None,
    dtype: o.Dtype = None,
    device: o.Device = None,
    threads: o.Threads = None,
    workers: o.Workers = None,
    checkpoint_every: o.CheckpointEvery = None,
    dim: o.Dim = None,
    num_heads: o.NumHeads = None,
    num_blocks: Annotated[int | None, typer.Option("--blocks", help="Pairs of a P and a D block.")] = None,
    pooling: Annotated[str | None, typer.Option(help="mean, sum or max, over the nodes of a graph.")] = None,
    num_folds: Annotated[int | None, typer.Option(help="Folds of the split (10).")] = None,
    data_seed: Annotated[int | None, typer.Option(help="Of the split into folds.")] = None,
) -> None:
    """Graph classification, cross-validated: the test accuracy at the epoch of the best validation, over folds."""
    names = ("dataset", "root", "dim", "num_heads", "num_blocks", "pooling", "num_folds", "data_seed")
    request = _request("graphs", {**locals(), "root": str(root.resolve())}, data=names)
    summary = launch_cross_validation(request, asdict(GraphsSettings()), GRAPHS_TRAINING, folds)
    if summary is not None:
        _print_folds(summary, dataset, out)


_VISION = ("patch_size", "dim", "num_heads", "num_blocks", "drop_path_rate")
_TRAINING = (
    "epochs",
    "steps",
    "batch_size",
    "learning_rate",
    "warmup_epochs",
    "weight_decay",
    "gradient_clip",
    "seed",
    "dtype",
)
_MACHINE = ("device", "threads", "workers", "checkpoint_every")


def _request(task: str, values: dict[str, Any], *, data: tuple[str, ...]) -> Request:
    """Sort a command's options by what they set."""

    def pick(names: tuple[str, ...]) -> dict[str, Any]:
        return given(**{name: values[name] for name in names})

    return Request(
        task=task,
        out=values["out"],
        resume=values["resume"],
        overwrite=values["overwrite"],
        data=pick(data),
        training=pick(_TRAINING),
        machine=pick(_MACHINE),
    )


# mean and standard deviation over ten folds, from the paper
_PAPER = {"MUTAG": "0.8512 +- 0.06 (GIN: 0.825)"}


def _print_folds(summary: dict[str, Any], dataset: str, out: Path) -> None:
    deviation = summary.get("test_accuracy_deviation")
    spread = "" if deviation is None else f" +- {deviation:.4f}"
    measured = f"test accuracy {summary['test_accuracy']:.4f}{spread} over {summary['folds']} folds"
    print(f"{measured}, {summary['seconds']:.0f} s")
    if dataset in _PAPER:
        print(f"in the paper, over ten folds: {_PAPER[dataset]}")
    print(f"run folder: {out}")


def _print_sample(out: Path) -> None:
    from plstm_torch.training.distributed import environment_rank
    from plstm_torch.training.run_folder import SAMPLE_FILE

    if environment_rank() == 0:
        print(f"\n{(out / SAMPLE_FILE).read_text(encoding='utf-8')}")
