"""Whole models of each kind, each rank with its share of the batch: losses and weights are those of one process."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial

import torch
from ranks import Finding, World, errors
from stacks import language_config, spoil
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

import plstm_config
import plstm_torch
from plstm_config.topology import DagTopology
from plstm_torch.training.sharding import gathered, shard

SAMPLES, STEPS = 4, 3
WIDE = {"dtype": "float64", "param_dtype": "float64"}
# From the samples of a rank to the sum of their losses.
Losses = Callable[[nn.Module, list[int]], Tensor]


def sequences() -> tuple[nn.Module, Losses]:
    tokens = torch.randint(11, (SAMPLES, 10))

    def losses(model: nn.Module, samples: list[int]) -> Tensor:
        logits = model(tokens[samples, :-1])
        return functional.cross_entropy(logits.flatten(0, 1), tokens[samples, 1:].flatten(), reduction="sum") / 9

    return plstm_torch.build(language_config()), losses


def grids() -> tuple[nn.Module, Losses]:
    config = plstm_config.preset(
        "plstm_vis_tiny", num_classes=3, num_blocks=2, dim=8, num_heads=2, patch_size=2, img_size=8, **WIDE
    )
    pixels, labels = torch.rand(SAMPLES, 8, 8, 3, dtype=torch.float64), torch.arange(SAMPLES) % 3

    def losses(model: nn.Module, samples: list[int]) -> Tensor:
        return functional.cross_entropy(model(pixels[samples]), labels[samples], reduction="sum")

    return plstm_torch.build(config), losses


def graphs() -> tuple[nn.Module, Losses]:
    config = plstm_config.pLSTMGraphModelConfig(
        input_dim=4, dim=8, output_dim=2, num_blocks=2, num_heads=2, max_degree=4, **WIDE
    )
    made = [DagTopology.from_edges(3 + size, [(node, node + 1) for node in range(2 + size)]) for size in range(SAMPLES)]
    features = [torch.randn(graph.num_nodes, 4, dtype=torch.float64) for graph in made]
    targets = torch.randn(SAMPLES, 2, dtype=torch.float64)

    def losses(model: nn.Module, samples: list[int]) -> Tensor:
        batch = DagTopology.batch([made[sample] for sample in samples])
        output = model(torch.cat([features[sample] for sample in samples]), batch)
        return (output - targets[samples]).square().sum()

    return plstm_torch.build(config), losses


def train(model: nn.Module, called: nn.Module, losses: Losses, samples: list[int], size: int) -> list[Tensor]:
    """Mean losses of a few steps of Adam."""
    optimizer, found = torch.optim.Adam(model.parameters(), 1e-2), []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = losses(called, samples) / SAMPLES
        (size * loss).backward()  # gradients are averaged over the ranks
        optimizer.step()
        found.append(loss.detach())
    return found


def compare(world: World, make: Callable[[], tuple[nn.Module, Losses]], strategy: str) -> Iterator[Finding]:
    model, losses = make()
    whole = spoil(model).double()
    own = deepcopy(whole)
    expected = train(whole, whole, losses, list(range(SAMPLES)), 1)
    if strategy == "ddp":
        called: nn.Module = DistributedDataParallel(own)
    else:
        called = shard(own, distributed.init_device_mesh("cpu", (world.size,), mesh_dim_names=("data_parallel",)))
    found = train(own, called, losses, list(range(SAMPLES))[world.rank :: world.size], world.size)
    yield from errors("losses", [world.sum(torch.stack(found))], [torch.stack(expected)])
    weights = [gathered(parameter.detach()).flatten() for parameter in own.parameters()]
    yield from errors("weights", [torch.cat(weights)], [torch.cat([weight.flatten() for weight in whole.parameters()])])


CASES = {
    f"{strategy} of a model on {make.__name__}": partial(compare, make=make, strategy=strategy)
    for make in (sequences, grids, graphs)
    for strategy in ("ddp", "fsdp")
}
