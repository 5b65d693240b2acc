"""Options that several commands share. None means: not given, so the task's or the preset's value holds."""

from pathlib import Path
from typing import Annotated

import typer

_TRAINING, _MACHINE, _MODEL = "Training", "Machine", "Model"

Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in --out; its settings stay as they are.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Delete the run in --out and start anew.")]
Out = Annotated[Path, typer.Option("--out", help="Run folder: weights, checkpoint, metrics, pictures.")]

Epochs = Annotated[int | None, typer.Option(help="Passes over the data.", rich_help_panel=_TRAINING)]
Steps = Annotated[int | None, typer.Option(help="Steps in all, instead of --epochs.", rich_help_panel=_TRAINING)]
BatchSize = Annotated[int | None, typer.Option(help="Over all processes together.", rich_help_panel=_TRAINING)]
LearningRate = Annotated[float | None, typer.Option(help="Highest learning rate.", rich_help_panel=_TRAINING)]
WarmupEpochs = Annotated[float | None, typer.Option(help="Linear warm-up.", rich_help_panel=_TRAINING)]
WeightDecay = Annotated[float | None, typer.Option(help="Not for biases and norms.", rich_help_panel=_TRAINING)]
GradientClip = Annotated[float | None, typer.Option(help="Largest norm; 0: off.", rich_help_panel=_TRAINING)]
Seed = Annotated[int | None, typer.Option(help="Of weights, order and noise.", rich_help_panel=_TRAINING)]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16, float16 or float64.", rich_help_panel=_TRAINING)]

Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=_MACHINE)]
Threads = Annotated[int | None, typer.Option(help="CPU threads of torch.", rich_help_panel=_MACHINE)]
Workers = Annotated[int | None, typer.Option(help="Processes that prepare batches.", rich_help_panel=_MACHINE)]
CheckpointEvery = Annotated[int | None, typer.Option(help="Steps between checkpoints.", rich_help_panel=_MACHINE)]

PatchSize = Annotated[int | None, typer.Option(help="Side of a patch in pixels.", rich_help_panel=_MODEL)]
Dim = Annotated[int | None, typer.Option(help="Width of the model.", rich_help_panel=_MODEL)]
NumHeads = Annotated[int | None, typer.Option("--heads", help="Heads of each layer.", rich_help_panel=_MODEL)]
NumBlocks = Annotated[int | None, typer.Option("--blocks", help="Number of blocks.", rich_help_panel=_MODEL)]
DropPath = Annotated[
    float | None, typer.Option("--drop-path", help="How often a block is skipped.", rich_help_panel=_MODEL)
]
