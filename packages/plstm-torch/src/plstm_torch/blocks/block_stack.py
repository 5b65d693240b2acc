"""Equal blocks one after the other."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from plstm_config import BlockStackConfig
from plstm_config.checks import Kind
from plstm_torch.build import register
from plstm_torch.context import Block, Cache, Context, call, kind_of


@register(BlockStackConfig)
class BlockStack(Block):
    r"""`num_blocks` blocks of one config, each with its own parameters.

    .. math:: x_{i+1} = \mathrm{Block}_i(x_i)

    Set `gradient_checkpointing` to True to recompute each block in the backward pass instead of keeping its
    activations.

    Submodules: `blocks`.

    Raises:
        ValueError: the config leaves `num_blocks` open.

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> block = plstm_config.PreUpProjectionBlockConfig(input_dim=16)
        >>> stack = plstm_torch.build(plstm_config.BlockStackConfig(input_dim=16, num_blocks=3, block=block))
        >>> stack.gradient_checkpointing = True  # recompute each block in the backward pass
        >>> stack(torch.rand(2, 10, 16)).shape
        torch.Size([2, 10, 16])
    """

    config: BlockStackConfig
    blocks: nn.ModuleList

    def __init__(self, config: BlockStackConfig) -> None:
        super().__init__(config)
        self.gradient_checkpointing = False

    @property
    def kind(self) -> Kind:  # type: ignore[override]
        """What the blocks work on, where all agree."""
        kinds = {kind_of(block) for block in self.blocks}
        return kinds.pop() if len(kinds) == 1 else "any"

    def _parts(self) -> list[tuple[str, nn.Module]]:
        # not named_children(), which leaves out a block that stands there a second time
        return [(str(index), block) for index, block in enumerate(self.blocks)]

    def run(self, x: Tensor, context: Context) -> tuple[Tensor, Cache]:
        """Run all blocks; see `Block.forward`."""
        caches: Cache = {}
        for name, output, cache in self.iterate(x, context):
            x, caches[name] = output, cache
        return x, caches

    def iterate(self, x: Tensor, context: Context) -> Iterator[tuple[str, Tensor, Cache]]:
        """Run the blocks one by one, for callers that look in between: name, output and new cache of each."""
        for name, block in self._parts():
            x, cache = self.run_block(block, x, context.of(name))
            yield name, x, cache

    def run_block(self, block: nn.Module, x: Tensor, context: Context) -> tuple[Tensor, Cache]:
        """Run one block, recomputed in the backward pass if `gradient_checkpointing` is set.

        Args:
            block: one of the stack.
            x: its input, of the shape that it takes.
            context: its own.

        Returns:
            Its output and its cache.
        """
        if not self.gradient_checkpointing or not torch.is_grad_enabled():
            return call(block, x, context)
        result: tuple[Tensor, Cache] = checkpoint(call, block, x, context, use_reentrant=False)
        return result
