"""The formulas of blocks, as `plstm_jax.formulas` describes them: importing this registers them."""

from plstm_jax.blocks.projection import post_up_projection_block, pre_up_projection_block
from plstm_jax.blocks.stacks import block_stack, graph_block, vision_block
from plstm_jax.blocks.transformer import transformer_block

__all__ = [
    "block_stack",
    "graph_block",
    "post_up_projection_block",
    "pre_up_projection_block",
    "transformer_block",
    "vision_block",
]
