"""Residual blocks around pLSTM layers, the transformer baseline and the block stack."""

from plstm_torch.blocks.block_stack import BlockStack
from plstm_torch.blocks.graph import pLSTMGraphBlock, pLSTMGraphEdgeBlock
from plstm_torch.blocks.post_up_projection import PostUpProjectionBlock
from plstm_torch.blocks.pre_up_projection import PreUpProjectionBlock
from plstm_torch.blocks.transformer import TransformerBlock
from plstm_torch.blocks.vision import pLSTMVisionBlock

__all__ = [
    "BlockStack",
    "PostUpProjectionBlock",
    "PreUpProjectionBlock",
    "TransformerBlock",
    "pLSTMGraphBlock",
    "pLSTMGraphEdgeBlock",
    "pLSTMVisionBlock",
]
