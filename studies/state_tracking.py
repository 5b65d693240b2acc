"""State tracking: word problems of groups, trained up to length 32 and tested up to 256.

python studies/state_tracking.py                      all runs that have no result yet, then page and picture
python studies/state_tracking.py --until 18:30        the same, but no longer than that
python studies/state_tracking.py --task s3 --seeds 0 1
python studies/state_tracking.py --report             page and picture only
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import state_tracking_report
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from words import TASKS, Task, Words

import plstm_config as config
import plstm_torch

RESULTS = Path(__file__).parent / "results" / "state_tracking"
TEST = 4_000_000  # first of the numbers that words of tests are drawn by; those of training are the seeds
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Settings:
    """What all runs share: chosen on words of no test, for scalars of either sign on parity, 4 x 4 on S3 and S5."""

    steps: int = 800
    stages: tuple[int, ...] = (2, 4, 8, 16, 32)  # lengths of the words
    stage: float = 0.15  # share of the steps in each of them but the last
    tokens: int = 1024  # of a batch, whatever the length
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    warmup: int = 100
    clip: float = 1.0
    width: int = 64
    key_dim: int = 4
    source_bias: float = -2.0  # a source that is nearly closed: what each token adds drowns what the first one wrote
    source_spread: float = 0.3
    gate_spread: float = 0.1
    transition_spread: float = 0.1
    eigenvalue_start: float = 0.72  # of both kinds
    eigenvalue_factor: float = 3.0  # eigenvalues come close to one within few steps
    lengths: tuple[int, ...] = (32, 64, 128, 256)
    words: int = 512  # of each test set


TINY = Settings(steps=2, stages=(2, 4), tokens=16, lengths=(4, 8), words=4)


@dataclass(frozen=True)
class Variant:
    """One kind of transition; everything else of the model is the same.

    Attributes:
        title: for tables and pictures.
        dim: JT.
        values: JV and JO.
        heads: of the layer; such that states of JT = 1 and of JT = 4 have as many numbers.
        spread: standard deviation of the initial weight of eigenvalues.
        eigenvalues: representation of the eigenvalues; "rows" is the block whose rows are bounded in L1.
        tasks: that it is asked for.
    """

    title: str
    dim: int
    values: int
    heads: int
    spread: float
    eigenvalues: str
    tasks: tuple[str, ...] = tuple(TASKS)


VARIANTS = {
    "positive": Variant("JT = 1, positive", 1, 1, 4, 0.3, "logsigmoid"),
    "negative": Variant("JT = 1, of either sign", 1, 1, 4, 0.3, "tanh"),
    "orthogonal": Variant("JT = 4, orthogonal U and V", 4, 4, 2, 0.1, "tanh"),
    "rows": Variant("JT = 4, rows bounded in L1", 4, 4, 2, 0.1, "rows"),
    # of 4 x 4 blocks with rows bounded by one, only signed permutations keep a state, and S5 is no group of such
    "rows5": Variant("JT = 5, rows bounded in L1", 5, 4, 2, 0.1, "rows", tasks=("s5",)),
}


class BoundedRows(nn.Module):
    """Transitions of a block-diagonal recurrence: input-dependent blocks, each row divided by max(1, its L1 norm).

    The library's transition layer has no such normalisation; the op takes any matrices, and the layer any module.

    Args:
        features: of the input.
        heads: blocks.
        dim: their side.
        spread: standard deviation of the initial weight.
    """

    def __init__(self, features: int, heads: int, dim: int, spread: float) -> None:
        super().__init__()
        self.shape = (heads, dim, dim)
        self.weight = nn.Parameter(spread * torch.randn(heads * dim * dim, features))
        self.bias = nn.Parameter(torch.eye(dim).repeat(heads, 1, 1).flatten())

    def forward(self, x: Tensor) -> Tensor:
        """Blocks [..., heads, dim, dim] of features [..., features]."""
        rows = F.linear(x, self.weight, self.bias).unflatten(-1, self.shape)
        return rows / rows.abs().sum(-1, keepdim=True).clamp(min=1.0)


def eigenvalue_bias(variant: Variant, settings: Settings) -> float:
    """Where eigenvalues start, before their activation."""
    start, factor = settings.eigenvalue_start, settings.eigenvalue_factor
    if variant.eigenvalues == "logsigmoid":
        gate = start ** (1 / factor)
        return math.log(gate / (1 - gate))
    return math.atanh(start) / factor


def layer_config(variant: Variant, settings: Settings) -> config.pLSTM1DLayerConfig:
    """A pLSTM layer without convolution, whose gates all depend on the input."""
    width, heads, dim, values = settings.width, variant.heads, variant.dim, variant.values
    shared: dict[str, Any] = {"num_heads": heads, "input_dim": width}
    gate = shared | {"weight": True}
    source = gate | {"bias_init": config.ConstantInitConfig(value=settings.source_bias)}
    source["weight_init"] = config.NormalInitConfig(stddev=settings.source_spread)
    linear = gate | {"activation": "identity", "weight_init": config.NormalInitConfig(stddev=settings.gate_spread)}
    spread = config.NormalInitConfig(stddev=settings.transition_spread)
    transition = config.LongRangeTransitionLayerConfig(
        **shared,
        transition_dim=dim,
        eigenvalue_representation="logsigmoid" if variant.eigenvalues == "logsigmoid" else "tanh",
        eigenvalue_factor=settings.eigenvalue_factor,
        eigenvalue_bias_init=config.ConstantInitConfig(value=eigenvalue_bias(variant, settings)),
        eigenvalue_weight_init=config.NormalInitConfig(stddev=variant.spread),
        inproj_weight_init=spread,
        outproj_weight_init=spread,
        normalization_mode="householder_orthogonalization",
    )
    return config.pLSTM1DLayerConfig(
        **shared,
        JT=dim,
        JV=values,
        JO=values,
        DK=settings.key_dim,
        DV=width // heads // values,
        sub_heads=1,
        additional_convolution=False,
        outprojection=False,
        source=config.SourceLayerConfig(JT=dim, JV=values, **source),
        mark=config.MarkLayerConfig(JO=values, JT=dim, bias_init=config.OnesInitConfig(), **linear),
        direct=config.DirectLayerConfig(JO=values, JV=values, bias_init=config.ZerosInitConfig(), **linear),
        transition=transition,
    )


def build(task: Task, variant: Variant, settings: Settings) -> nn.Module:
    """A language model of one block, with an answer for each element of the group."""
    width = settings.width
    layer = layer_config(variant, settings)
    shape: dict[str, Any] = {"input_dim": width, "projection_scaling": 1.0, "projection_round": 8}
    block = config.PreUpProjectionBlockConfig(**shape, interaction_module=layer)
    stack = config.BlockStackConfig(input_dim=width, num_blocks=1, block=block)
    model: Any = plstm_torch.build(
        config.pLSTMLMModelConfig(
            vocab_size=task.start + 1, embedding_dim=width, block_stack=stack, logit_soft_cap=None
        )
    )
    if variant.eigenvalues == "rows":
        rows = BoundedRows(width, variant.heads, variant.dim, settings.transition_spread)
        model.block_stack.blocks[0].interaction_module.transition = rows
    return cast(nn.Module, model)


def rate(step: int, settings: Settings) -> float:
    """Factor of the learning rate: a linear rise, then half a cosine."""
    fall = 0.5 * (1.0 + torch.cos(torch.tensor(torch.pi * step / settings.steps)).item())
    return min(1.0, (step + 1) / settings.warmup) * fall


def length_at(step: int, settings: Settings) -> int:
    """Length of the words of a step."""
    stage = int(step / (settings.stage * settings.steps))
    return settings.stages[min(stage, len(settings.stages) - 1)]


class OutOfTimeError(Exception):
    """The time that was given is over."""


def train(model: nn.Module, task: Task, seed: int, settings: Settings, check: Callable[[], None]) -> list[float]:
    """Train on words that are drawn anew in each step.

    Args:
        model: changed in place.
        task: the word problem.
        seed: of the words.
        settings: of the training.
        check: called before every step; raises to stop.

    Returns:
        The mean loss of each twentieth of the steps.
    """
    decayed = plstm_torch.parameter_groups(model, settings.weight_decay)
    optimizer = torch.optim.AdamW(decayed, lr=settings.learning_rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, settings))
    words, losses = Words(task, seed), []
    for step in range(settings.steps):
        check()
        length = length_at(step, settings)
        inputs, targets = map(torch.from_numpy, words.draw(settings.tokens // length, length))
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    part = max(1, settings.steps // 20)
    return [sum(losses[at : at + part]) / len(losses[at : at + part]) for at in range(0, len(losses), part)]


@torch.no_grad()
def accuracy(model: nn.Module, task: Task, length: int, count: int, first: int) -> dict[str, Any]:
    """How often the product is right, on words that depend on their length and `first` only.

    Returns:
        `all`: of all positions behind the start token; `last`: of the whole words.
    """
    inputs, targets = map(torch.from_numpy, Words(task, first + length).draw(count, length))
    right = torch.cat([model(part).argmax(-1) for part in inputs.split(128)]) == targets
    return {"words": count, "all": right[:, 1:].float().mean().item(), "last": right[:, -1].float().mean().item()}


def machine() -> dict[str, Any]:
    """What times depend on."""
    return {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def run(name: str, kind: str, seed: int, settings: Settings, check: Callable[[], None]) -> dict[str, Any]:
    """Train one model and test it.

    Args:
        name: of the task.
        kind: of the transition.
        seed: of initial weights and of words.
        settings: of the training.
        check: called before every step; raises to stop.

    Returns:
        All that is written to the result's file.
    """
    task = TASKS[name]
    torch.manual_seed(seed)
    model = build(task, VARIANTS[kind], settings)
    about = machine() | {"date": datetime.now().date().isoformat()}
    wall, processor = time.monotonic(), time.process_time()
    losses = train(model, task, seed, settings, check)
    times = {"wall_seconds": time.monotonic() - wall, "processor_seconds": time.process_time() - processor}
    model.eval()
    tested = {str(length): accuracy(model, task, length, settings.words, TEST) for length in settings.lengths}
    return {
        **{"task": name, "transition": kind, "seed": seed},
        **{"settings": asdict(settings), "variant": asdict(VARIANTS[kind])},
        "parameters": sum(one.numel() for one in model.parameters()),
        **{"machine": about, "training": times, "losses": losses, "test": tested},
    }


def plan() -> dict[str, dict[str, str]]:
    """The transitions that each task is asked of, with their titles."""
    return {task: {kind: one.title for kind, one in VARIANTS.items() if task in one.tasks} for task in TASKS}


def study(options: argparse.Namespace, check: Callable[[], None]) -> None:
    """All runs that have no result yet, the first seed of everything before the second."""
    pairs = [(task, kind) for task in options.task for kind in plan()[task] if kind in options.transition]
    wanted = [(seed, *pair) for seed in options.seeds for pair in pairs]
    options.out.mkdir(parents=True, exist_ok=True)
    for seed, task, kind in wanted:
        path = options.out / f"{task}_{kind}_{seed}.json"
        if path.exists():
            continue
        found = run(task, kind, seed, options.settings, check)
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(path)
        scores = "  ".join(f"{length}: {one['last']:.3f}" for length, one in found["test"].items())
        print(f"{path.stem:24} {found['training']['wall_seconds']:6.1f} s  {scores}", flush=True)


def clock(text: str) -> datetime:
    """A time of today, as HH:MM."""
    return datetime.combine(datetime.now().date(), datetime.strptime(text, "%H:%M").time())


def deadline(options: argparse.Namespace) -> Callable[[], None]:
    """What raises when the time is over that the options give."""
    ends = [datetime.now() + timedelta(minutes=options.minutes)] if options.minutes is not None else []
    if options.until is not None:
        ends.append(options.until)

    def check() -> None:
        if ends and datetime.now() >= min(ends):
            raise OutOfTimeError

    return check


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--transition", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--minutes", type=float, help="stop after so many; a run that is not through is dropped")
    parser.add_argument("--until", type=clock, metavar="HH:MM", help="stop at this time of today")
    parser.add_argument("--tiny", action="store_true", help="two steps and short words, to try it out; needs --out")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--report", action="store_true", help="train nothing")
    options = parser.parse_args(arguments)
    if options.tiny and options.out == RESULTS:
        parser.error("--tiny: expected --out with it, since the results of the study are of whole runs")
    options.settings = TINY if options.tiny else Settings()
    return options


def main(arguments: list[str] | None = None) -> None:
    """Run what is missing; write page and picture if the results are those of the study."""
    options = parse(arguments)
    torch.set_num_threads(1)
    try:
        if not options.report:
            study(options, deadline(options))
    except OutOfTimeError:
        print("out of time: the same command goes on from here")
    if options.out == RESULTS:
        state_tracking_report.write(RESULTS, plan(), SEEDS)


if __name__ == "__main__":
    main()
