"""Batches without samples: every parameter gets a gradient of zeros, as data parallel training demands."""

import pytest
import torch
from torch import nn

from plstm_config import (
    BlockStackConfig,
    Convolution1DLayerConfig,
    Convolution2DLayerConfig,
    TransformerBlockConfig,
    pLSTMGraphModelConfig,
    pLSTMLMModelConfig,
    pLSTMVisionModelConfig,
)
from plstm_config.topology import DagTopology
from plstm_torch import build

VISION = {"dim": 8, "num_heads": 2, "num_blocks": 1, "patch_size": 4, "resolution": (16, 12), "output_shape": (5,)}
GRAPH = {"input_dim": 4, "dim": 16, "output_dim": 3, "num_heads": 2, "max_edges": 3}
NO_TOKENS, NO_IMAGES = torch.zeros(0, 6, dtype=torch.int64), torch.zeros(0, 16, 12, 3)
NO_GRAPHS, NO_EDGES = DagTopology.batch([]), DagTopology.from_edges(3, torch.zeros(0, 2, dtype=torch.int64))


def attention_stack() -> BlockStackConfig:
    return BlockStackConfig(input_dim=8, num_blocks=1, block=TransformerBlockConfig(input_dim=8, num_heads=2))


CASES = {
    "language_pre_up": (pLSTMLMModelConfig(vocab_size=11, embedding_dim=16, num_blocks=1), (NO_TOKENS,)),
    "language_post_up": (
        pLSTMLMModelConfig(vocab_size=11, embedding_dim=16, num_blocks=1, block_type="post_up"),
        (NO_TOKENS,),
    ),
    "language_no_steps": (
        pLSTMLMModelConfig(vocab_size=11, embedding_dim=16, num_blocks=1),
        (torch.zeros(2, 0, dtype=torch.int64),),
    ),
    "vision": (pLSTMVisionModelConfig(**VISION), (NO_IMAGES,)),
    "vision_attention": (pLSTMVisionModelConfig(**VISION, block_stack=attention_stack()), (NO_IMAGES,)),
    "graph_without_edges": (pLSTMGraphModelConfig(**GRAPH), (torch.ones(3, 4), NO_EDGES)),
    "graph_without_nodes": (pLSTMGraphModelConfig(**GRAPH), (torch.zeros(0, 4), NO_GRAPHS)),
    "edge_graph_without_edges": (
        pLSTMGraphModelConfig(**GRAPH, edge_input_dim=2),
        (torch.ones(3, 4), NO_EDGES, torch.zeros(0, 2)),
    ),
    "edge_graph_without_nodes": (
        pLSTMGraphModelConfig(**GRAPH, edge_input_dim=2),
        (torch.zeros(0, 4), NO_GRAPHS, torch.zeros(0, 2)),
    ),
    "sequence_convolution": (Convolution1DLayerConfig(input_dim=4), (torch.zeros(0, 5, 4),)),
    "sequence_convolution_no_steps": (Convolution1DLayerConfig(input_dim=4), (torch.zeros(2, 0, 4),)),
    "grid_convolution": (Convolution2DLayerConfig(input_dim=4), (torch.zeros(0, 5, 5, 4),)),
    "grid_convolution_no_rows": (Convolution2DLayerConfig(input_dim=4), (torch.zeros(2, 0, 5, 4),)),
}


@pytest.mark.parametrize("name", CASES)
def test_parameters_have_gradients_all_the_same(name: str) -> None:
    config, inputs = CASES[name]
    module: nn.Module = build(config)
    output = module(*inputs)
    named = dict(module.named_parameters())
    found = torch.autograd.grad(output.sum(), list(named.values()))
    for parameter, gradient in zip(named.values(), found, strict=True):
        assert gradient.shape == parameter.shape
        assert gradient.isfinite().all()
        if output.numel() == 0:
            assert (gradient == 0).all()
