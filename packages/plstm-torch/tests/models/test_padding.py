"""The language model with padding, embeddings in place of tokens, and the features between its blocks."""

import math

import pytest
import torch
from torch import nn

from plstm_config import pLSTMLMModelConfig
from plstm_testing.tolerances import assert_close
from plstm_torch import build


@pytest.fixture
def model(randomize) -> nn.Module:
    config = pLSTMLMModelConfig(vocab_size=11, embedding_dim=8, num_blocks=2, dtype="float64", param_dtype="float64")
    return randomize(build(config)).eval()


@torch.no_grad()
def test_holes_are_never_read_and_the_cache_continues(model) -> None:
    mask = torch.tensor([[0, 1, 1, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    tokens = torch.randint(0, 11, mask.shape)
    logits, cache = model(tokens.masked_fill(mask == 0, -7), attention_mask=mask, return_cache=True)
    embeds = model.token_embedding(tokens).masked_fill((mask == 0).unsqueeze(-1), math.nan)
    embedded, _ = model(inputs_embeds=embeds, attention_mask=mask.bool(), return_cache=True)
    assert torch.equal(embedded, logits)
    new = torch.randint(0, 11, (3, 2))
    after = model(new, cache=cache, attention_mask=torch.tensor([[1, 1], [0, 1], [1, 0]]))
    for row in range(3):
        whole = torch.cat([tokens[row][mask[row] == 1], new[row, [slice(0, 2), slice(1, 2), slice(0, 1)][row]]])
        alone = model(whole[None])[0]
        count = int(mask[row].sum())
        if count:
            assert_close(logits[row][mask[row] == 1], alone[:count])
        assert_close(after[row, [slice(0, 2), slice(1, 2), slice(0, 1)][row]], alone[count:])
    assert not logits[mask == 0].any()


@torch.no_grad()
def test_features_between_the_blocks(model) -> None:
    tokens = torch.randint(0, 11, (2, 5))
    kept = []
    for block in model.block_stack.blocks:
        block.norm.register_forward_hook(lambda *call: kept.append(call[1][0]))
    encoded = model.encode(tokens, all_layers=True)
    assert all(torch.equal(layer, x) for layer, x in zip(encoded.layers[:2], kept, strict=True))
    assert torch.equal(encoded.layers[2], encoded.hidden)
    assert torch.equal(model.logits(encoded.hidden), model(tokens))
    assert model.encode(tokens).layers is None


def test_what_is_refused(model) -> None:
    tokens = torch.zeros(1, 3, dtype=torch.long)
    with pytest.raises(ValueError, match="token_ids: expected either token_ids or inputs_embeds, got neither"):
        model()
    with pytest.raises(ValueError, match="got both"):
        model(tokens, inputs_embeds=torch.zeros(1, 3, 8))
    with pytest.raises(ValueError, match=r"inputs_embeds: expected shape \[B, T, 8\], got \(1, 3, 7\)"):
        model(inputs_embeds=torch.zeros(1, 3, 7))
    with pytest.raises(ValueError, match=r"attention_mask: expected shape \(1, 3\), got \(3,\)"):
        model(tokens, attention_mask=torch.ones(3))
    with pytest.raises(ValueError, match="cu_seqlens: expected None beside attention_mask"):
        model(tokens, attention_mask=torch.ones(1, 3), cu_seqlens=torch.tensor([0, 3]))
