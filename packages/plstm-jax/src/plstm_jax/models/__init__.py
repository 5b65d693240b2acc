"""The formulas of models, as `plstm_jax.formulas` describes them: importing this registers them."""

from plstm_jax.models.graph import graph_model, pool_graphs
from plstm_jax.models.language import language_model, token_embedding
from plstm_jax.models.pooling import pool_grid
from plstm_jax.models.pos_embed import pos_embed_2d, resize_pos_embed
from plstm_jax.models.vision import patch_embed, vision_model

__all__ = [
    "graph_model",
    "language_model",
    "patch_embed",
    "pool_graphs",
    "pool_grid",
    "pos_embed_2d",
    "resize_pos_embed",
    "token_embedding",
    "vision_model",
]
