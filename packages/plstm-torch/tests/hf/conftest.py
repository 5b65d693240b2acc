"""Models small enough to train, and what every test of transformers needs: no network."""

import os
from collections.abc import Callable

import pytest
from torch import nn

from plstm_config import pLSTMLMModelConfig, pLSTMVisionModelConfig

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"


@pytest.fixture
def language_config() -> pLSTMLMModelConfig:
    return pLSTMLMModelConfig(vocab_size=23, embedding_dim=16, num_blocks=2, dtype="float64", param_dtype="float64")


@pytest.fixture
def vision_config() -> pLSTMVisionModelConfig:
    return pLSTMVisionModelConfig(
        dim=16, num_heads=2, num_blocks=2, patch_size=4, resolution=(8, 12), output_shape=(3,)
    )


@pytest.fixture
def language_model(language_config: pLSTMLMModelConfig, randomize: Callable[[nn.Module], nn.Module]) -> nn.Module:
    from plstm_torch.hf import PlstmConfig, PlstmForCausalLM

    return randomize(PlstmForCausalLM(PlstmConfig.from_plstm(language_config))).eval()
