"""Whole models: images, tokens and graphs to logits."""

from plstm_torch.models.graph import pLSTMGraphModel
from plstm_torch.models.language import pLSTMLMModel
from plstm_torch.models.patch_embed import PatchEmbed
from plstm_torch.models.pos_embed import PosEmbed2D
from plstm_torch.models.vision import pLSTMVisionModel

__all__ = ["PatchEmbed", "PosEmbed2D", "pLSTMGraphModel", "pLSTMLMModel", "pLSTMVisionModel"]
