"""FSDP2: parameters, gradients and the optimizer's means spread over the processes, block by block.

Checkpoints hold whole tensors, the same as those of a single process: a run may continue with another number of
processes, or without sharding.
"""

from typing import Any

import torch
from torch import nn

from plstm_torch.arrays import distributed_like
from plstm_torch.blocks.block_stack import BlockStack
from plstm_torch.context import ContextModule
from plstm_torch.optional import UserError


def shard(model: nn.Module, mesh: Any) -> nn.Module:
    """Shard a model in place; each block is gathered when it runs, and everything else when the model runs.

    Args:
        model: with its weights.
        mesh: torch's device mesh, with a dimension "data_parallel".

    Returns:
        The model.

    Raises:
        UserError: if its parameters are of several types.
    """
    kinds = sorted({str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters()})
    if len(kinds) > 1:  # the norms of a float64 model stay in float32
        raise UserError(f"strategy: expected parameters of one type for fsdp, got {' and '.join(kinds)}")
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    over = mesh["data_parallel"]
    blocks = [block for part in model.modules() if isinstance(part, BlockStack) for block in part.blocks]
    for block in dict.fromkeys(blocks):
        fully_shard(block, mesh=over)
        if isinstance(block, ContextModule):  # called as it is in a pass over a sequence, by `step` when decoding
            register_fsdp_forward_method(block, "step")
    fully_shard(model, mesh=over)
    return model


def gathered(value: Any) -> Any:
    """Return a tree of dictionaries and lists with whole tensors; every process takes part.

    Args:
        value: such as a state dict.

    Returns:
        The tree; what was no distributed tensor is the same object.
    """
    if isinstance(value, dict):
        return {name: gathered(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [gathered(inner) for inner in value]
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def spread_means(optimizer: torch.optim.Optimizer) -> None:
    """Spread an optimizer's means, whole tensors that a checkpoint held, as its parameters are.

    Args:
        optimizer: of a model that may be sharded.
    """
    for parameter, means in optimizer.state.items():
        for name, value in means.items():
            if value.shape == parameter.shape:
                means[name] = distributed_like(value, parameter)
