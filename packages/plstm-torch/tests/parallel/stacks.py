"""Layers and models on sequences in pieces."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from ranks import Finding, World, errors
from torch import distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

import plstm_config
import plstm_torch
from plstm_torch import parallel

WIDE = {"dtype": "float64", "param_dtype": "float64"}


def spoil(module: nn.Module) -> nn.Module:
    """Weights that make every gate depend on its input."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return module


def layer(world: World, length: int, borders: list[int] | None, *, cached: bool, batch: int = 3) -> Iterator[Finding]:
    """Output, cache and gradients of a layer whose convolution is longer than some pieces."""
    config = plstm_config.pLSTM1DLayerConfig(input_dim=8, num_heads=2, **WIDE)
    whole = spoil(plstm_torch.build(config))
    mesh = distributed.init_device_mesh("cpu", (world.size,))
    own = parallel.context_parallel(deepcopy(whole), mesh)
    bounds = None if borders is None else torch.tensor(borders)
    cache = None
    if cached:
        rows = batch * (1 if borders is None else len(borders) - 1)
        cache = {name: torch.randn_like(entry) for name, entry in whole.init_cache(rows).items()}
    x = torch.randn(batch, length, 8, dtype=torch.float64, requires_grad=True)
    output, after = whole(x, cache=cache, return_cache=True, cu_seqlens=bounds)
    weight = torch.randn_like(output)
    ((output * weight).sum() + sum(entry.sin().sum() for entry in after.values())).backward()
    piece = parallel.split_sequence(x.detach(), mesh).requires_grad_()
    part, end = own(piece, cache=cache, return_cache=True, cu_seqlens=bounds)
    share = sum(entry.sin().sum() for entry in end.values()) / world.size
    ((part * parallel.split_sequence(weight, mesh)).sum() + share).backward()
    yield from errors("output", [part], [parallel.split_sequence(output, mesh)])
    yield from errors("state window", list(end.values()), list(after.values()))
    yield from errors("x", [piece.grad], [parallel.split_sequence(x.grad, mesh)])
    for (name, mine), theirs in zip(own.named_parameters(), whole.parameters(), strict=True):
        yield from errors(name, [world.sum(mine.grad)], [theirs.grad])


def language_config() -> plstm_config.pLSTMLMModelConfig:
    return plstm_config.pLSTMLMModelConfig(
        vocab_size=11, embedding_dim=8, num_blocks=2, dtype="float64", param_dtype="float64"
    )


def language_model(world: World, kind: str, context: int | None = None) -> Iterator[Finding]:
    """Three steps of training, losses and weights those of one process: with DDP, or FSDP2 and blocks recomputed.

    `context` ranks share a sequence, all unless given; the others have other rows of the batch.
    """
    whole = spoil(plstm_torch.build(language_config())).double()
    context = context or world.size
    mesh = distributed.init_device_mesh("cpu", (world.size // context, context), mesh_dim_names=("data", "context"))
    own = parallel.context_parallel(deepcopy(whole), mesh["context"])
    tokens = torch.randint(11, (2, 18))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    bounds = torch.tensor([0, 6, 17])
    if kind == "fsdp":
        own.set_gradient_checkpointing()
        everyone = distributed.init_device_mesh("cpu", (world.size,))
        for block in own.block_stack.blocks:
            fully_shard(block, mesh=everyone)
        trained: Any = fully_shard(own, mesh=everyone)
    else:
        trained = DistributedDataParallel(own)

    def losses(model: nn.Module, x: torch.Tensor, y: torch.Tensor, factor: int) -> list[torch.Tensor]:
        optimizer, found = torch.optim.SGD(model.parameters(), 0.1), []
        for _ in range(3):
            logits = model(x, cu_seqlens=bounds)
            total = functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum") / targets.numel()
            (factor * total).backward()  # the ranks' gradients are averaged
            optimizer.step()
            optimizer.zero_grad()
            found.append(total.detach())
        return found

    expected = losses(whole, inputs, targets, 1)
    rows = slice(mesh["data"].get_local_rank(), None, mesh["data"].size())
    cut = [parallel.split_sequence(one[rows], mesh["context"]) for one in (inputs, targets)]
    mine = losses(trained, *cut, world.size)
    yield from errors("losses", [world.sum(torch.stack(mine))], [torch.stack(expected)])
    weights = [weight.full_tensor() if kind == "fsdp" else weight for weight in own.parameters()]
    yield from errors("weights", [torch.cat([weight.flatten() for weight in weights])],
                      [torch.cat([weight.flatten() for weight in whole.parameters()])])  # fmt: skip


def decoding(world: World) -> Iterator[Finding]:
    """A prompt in pieces, then steps on every rank; and whole sequences again."""
    model = spoil(plstm_torch.build(language_config()))
    mesh = distributed.init_device_mesh("cpu", (world.size,))
    tokens = torch.randint(11, (2, 9))
    expected = model(tokens)
    parallel.context_parallel(model, mesh)
    _, cache = model(parallel.split_sequence(tokens[:, :8], mesh), return_cache=True)
    yield from errors("logits", [model.step(tokens[:, 8], cache)[0]], [expected[:, 8]])
    parallel.context_parallel(model, None)
    yield from errors("whole", [model(tokens)], [expected])


def grid_modules(world: World, shape: tuple[int, int], kind: str, sides: tuple[int, int]) -> Iterator[Finding]:
    """Output and gradients of a layer, or of blocks, on tiles; the convolution is wider than some of them."""
    conv = plstm_config.Convolution2DLayerConfig(kernel_size=(3, 4), causal=kind == "list")
    width = {"input_dim": 8, "num_heads": 2, **WIDE}
    convolved = {**width, "additional_convolution": True, "convolution": conv}
    configs = {
        "fused": plstm_config.pLSTM2DLayerFusedConfig(**convolved, mode="D"),
        "list": plstm_config.pLSTM2DLayerConfig(**convolved, orientation_combinations=[1, 0, 2]),
        "blocks": plstm_config.BlockStackConfig(
            input_dim=8, num_blocks=2, block=plstm_config.pLSTMVisionBlockConfig(**width), **WIDE
        ),
    }
    whole = spoil(plstm_torch.build(configs[kind])).double()
    names = ("x", "y")[: len(shape)]
    mesh = distributed.init_device_mesh("cpu", shape, mesh_dim_names=names)
    own = parallel.context_parallel(deepcopy(whole), mesh, parts=2)
    x = torch.randn(2, *sides, 8, dtype=torch.float64, requires_grad=True)
    output = whole(x)
    weight = torch.randn_like(output)
    (output * weight).sum().backward()
    tile = parallel.split_grid(x.detach(), mesh).requires_grad_()
    part = own(tile)
    (part * parallel.split_grid(weight, mesh)).sum().backward()
    yield from errors("output", [part], [parallel.split_grid(output, mesh)])
    yield from errors("x", [tile.grad], [parallel.split_grid(x.grad, mesh)])
    for (name, mine), theirs in zip(own.named_parameters(), whole.parameters(), strict=True):
        yield from errors(name, [world.sum(mine.grad)], [theirs.grad])


def on_grids(kind: str, shape: str, sides: tuple[int, int]) -> Callable[[World], Iterator[Finding]]:
    """`grid_modules` on strips or on tiles."""

    def case(world: World) -> Iterator[Finding]:
        sizes = (world.size,) if shape == "strips" else (world.size // 2, 2)
        yield from grid_modules(world, sizes, kind, sides)

    return case


def vision_model(world: World, pooling: str, shape: str) -> Iterator[Finding]:
    """Logits on all ranks, and gradients, of a model whose embedding is resampled to another grid."""
    config = plstm_config.preset(
        "plstm_vis_tiny", num_classes=3, num_blocks=1, dim=8, num_heads=2, patch_size=2, img_size=8, **WIDE
    )
    whole = spoil(plstm_torch.build(plstm_config.change(config, {"pooling": pooling}))).double()
    sizes = (world.size,) if shape == "strips" else (world.size // 2, 2)
    mesh = distributed.init_device_mesh("cpu", sizes, mesh_dim_names=("x", "y")[: len(sizes)])
    own = parallel.context_parallel(deepcopy(whole), mesh)
    pixels = torch.rand(2, 12, 10, 3, dtype=torch.float64, requires_grad=True)
    expected = whole(pixels)
    expected.square().sum().backward()

    def tile(tensor: torch.Tensor) -> torch.Tensor:
        return parallel.split_grid(tensor, mesh, step=(2, 2))

    part = tile(pixels.detach()).requires_grad_()
    logits = own(part)
    (logits.square().sum() / world.size).backward()  # the same loss on all ranks
    yield from errors("logits pixels", [logits, part.grad], [expected, tile(pixels.grad)])
    for (name, mine), theirs in zip(own.named_parameters(), whole.parameters(), strict=True):
        yield from errors(name, [world.sum(mine.grad)], [theirs.grad])


def refused(world: World) -> Iterator[Finding]:
    """What cannot be cut is refused, and so are inputs that are wrong on one rank."""
    mesh = distributed.init_device_mesh("cpu", (world.size,))
    model = parallel.context_parallel(plstm_torch.build(language_config()), mesh)
    tokens, last = torch.randint(11, (2, 8)), world.rank == world.size - 1
    mask = torch.ones(2, 8).index_fill(1, torch.tensor([0]), 0.0)
    attention = plstm_torch.build(plstm_config.TransformerBlockConfig(input_dim=8, num_heads=2))
    both = plstm_torch.build(plstm_config.pLSTM1DLayerConfig(input_dim=8, num_heads=2, bidirectional=True))
    overlapping = plstm_config.pLSTMVisionModelConfig(
        dim=8, num_heads=2, num_blocks=1, resolution=(8, 8), patch_size=4, stride=2, output_shape=(3,)
    )

    def spread(module: nn.Module, over: DeviceMesh = mesh) -> Callable[[], object]:
        return lambda: parallel.context_parallel(module, over)

    calls = {
        "batch size of x: expected the same": lambda: model(tokens[: 1 + last]),
        "attention_mask: expected None, since sequences are spread": lambda: model(tokens, attention_mask=mask),
        "module: expected parts that can be spread over ranks, got a TransformerBlock": spread(attention),
        "module: expected causal layers on sequences, got a pLSTM1DLayer with bidirectional=True": spread(both),
        "module: expected patches that tile the image": spread(plstm_torch.build(overlapping)),
        "step: expected a divisor of 2, got 3": lambda: parallel.split_grid(tokens, mesh, dims=(0, 1), step=(3, 1)),
        "step: expected a divisor of 8, got 0": lambda: parallel.split_grid(tokens, mesh, step=(0, 1)),
        "generate: expected a model on whole sequences": lambda: model.generate(tokens, 1),
        "stream: expected a model on whole sequences": lambda: next(model.stream(tokens, 1)),
        "module: expected pLSTM layers on sequences or grids, got a Linear without": spread(nn.Linear(2, 2)),
        "mesh: expected 1 dimension": spread(model, distributed.init_device_mesh("cpu", (1, world.size))),
    }
    for start, call in calls.items():
        message = world.message(call)
        yield message, 0.0 if message.startswith(f"ValueError: {start}") else 1.0


CASES = {
    "layer": partial(layer, length=11, borders=None, cached=False),
    "layer from a cache": partial(layer, length=11, borders=None, cached=True),
    "layer on few steps": partial(layer, length=2, borders=None, cached=True),
    "layer on no step": partial(layer, length=0, borders=None, cached=True),
    "packed layer": partial(layer, length=13, borders=[0, 5, 5, 6, 13, 13], cached=False),
    "packed layer on no row of the batch": partial(layer, length=13, borders=[0, 5, 13], cached=True, batch=0),
    "packed layer from a cache": partial(layer, length=13, borders=[0, 1, 1, 9, 13], cached=True),
    "language model with DDP": partial(language_model, kind="ddp"),
    "language model with FSDP2": partial(language_model, kind="fsdp"),
    "language model with DDP over data and context": partial(language_model, kind="ddp", context=2),
    "language model with FSDP2 over data and context": partial(language_model, kind="fsdp", context=2),
    "decoding": decoding,
    "fused layer in tiles": on_grids("fused", "tiles", (5, 7)),
    "fused layer in strips": on_grids("fused", "strips", (5, 3)),
    "layer with a list of orientations in tiles": on_grids("list", "tiles", (4, 5)),
    "layer with a list of orientations in strips": on_grids("list", "strips", (3, 4)),
    "blocks in tiles": on_grids("blocks", "tiles", (5, 4)),
    "vision model with corners in tiles": partial(vision_model, pooling="corners", shape="tiles"),
    "vision model with corners in strips": partial(vision_model, pooling="corners", shape="strips"),
    "vision model with a mean in tiles": partial(vision_model, pooling="mean", shape="tiles"),
    "vision model with a center in strips": partial(vision_model, pooling="center", shape="strips"),
    "bad input": refused,
}
