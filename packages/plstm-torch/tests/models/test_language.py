"""The language model: full pass, steps, packing, heads and bad input."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from plstm_config import SoftCapFunctionConfig, pLSTMLMModelConfig
from plstm_testing.tolerances import assert_close
from plstm_torch import build

DTYPES = {"dtype": "float64", "param_dtype": "float64"}


def config(**options: object) -> pLSTMLMModelConfig:
    return pLSTMLMModelConfig(**{"vocab_size": 11, "embedding_dim": 16, "num_blocks": 2, **DTYPES, **options})


@pytest.fixture(params=["pre_up", "post_up"])
def model(request: pytest.FixtureRequest, randomize: Callable[[nn.Module], nn.Module]) -> nn.Module:
    return randomize(build(config(block_type=request.param)))


def tokens(*sizes: int) -> Tensor:
    return torch.randint(0, 11, sizes)


@torch.no_grad()
def test_steps_equal_the_full_pass(model: nn.Module) -> None:
    token_ids = tokens(2, 9)
    full = model(token_ids)
    assert full.shape == (2, 9, 11)
    cache = model.init_cache(2)
    steps = []
    for t in range(9):
        logits, cache = model.step(token_ids[:, t], cache)
        steps.append(logits)
    assert_close(torch.stack(steps, 1), full)


@torch.no_grad()
def test_pieces_equal_the_whole(model: nn.Module) -> None:
    token_ids = tokens(2, 9)
    head, cache = model(token_ids[:, :5], return_cache=True)
    tail, _ = model(token_ids[:, 5:], cache=cache, return_cache=True)
    assert_close(torch.cat([head, tail], 1), model(token_ids))


@torch.no_grad()
def test_packed_equals_separate(model: nn.Module) -> None:
    token_ids = tokens(1, 9)
    packed, cache = model(token_ids, cu_seqlens=torch.tensor([0, 4, 9]), return_cache=True)
    first, second = model(token_ids[:, :4]), model(token_ids[:, 4:])
    assert_close(packed, torch.cat([first, second], 1))
    following = tokens(2)
    logits, _ = model.step(following, cache)
    assert_close(logits[0], model(torch.cat([token_ids[:, :4], following[None, :1]], 1))[0, -1])
    assert_close(logits[1], model(torch.cat([token_ids[:, 4:], following[None, 1:]], 1))[0, -1])


def test_every_parameter_gets_a_gradient(model: nn.Module) -> None:
    model(tokens(2, 5)).square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@torch.no_grad()
def test_logits_are_causal(model: nn.Module) -> None:
    token_ids = tokens(1, 8)
    changed = token_ids.clone()
    changed[0, 5] = (changed[0, 5] + 1) % 11
    difference = (model(token_ids) - model(changed)).abs().sum(-1)[0]
    assert bool((difference[:5] == 0).all())
    assert bool((difference[5:] > 0).all())


def test_tied_head_uses_the_embedding(randomize: Callable[[nn.Module], nn.Module]) -> None:
    model = randomize(build(config(tie_weights=True, logit_soft_cap=SoftCapFunctionConfig(scale=1e9))))
    assert [name for name in model.state_dict() if "lm_head" in name] == []
    token_ids = tokens(1, 4)
    hidden = model.post_blocks_norm(model.block_stack(model.token_embedding(token_ids)))
    assert_close(model(token_ids).detach(), (hidden @ model.token_embedding.weight.T).detach())


def test_logits_are_capped_at_ten_by_default() -> None:
    model = build(config())
    with torch.no_grad():
        model.lm_head.weight.mul_(1e4)
    assert 9.9 < float(model(tokens(1, 6)).detach().abs().max()) <= 10.0


@pytest.mark.parametrize("block_type", ["pre_up", "post_up"])
def test_default_dtypes_and_gradient_checkpointing(block_type: str) -> None:
    model = build(config(block_type=block_type, dtype="bfloat16", param_dtype="float32"))
    model.set_gradient_checkpointing()
    logits = model(tokens(2, 6))
    assert logits.dtype == torch.bfloat16
    logits.float().sum().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters())


@pytest.mark.parametrize(
    ("token_ids", "error", "message"),
    [
        (torch.zeros(4, dtype=torch.long), ValueError, r"token_ids: expected shape \[B, T\], got \(4,\)"),
        (torch.zeros(1, 4), TypeError, r"token_ids: expected integers, got torch\.float32"),
        (torch.tensor([[3, 11]]), ValueError, r"token_ids: expected values in \[0, 11\), got values from 3 to 11"),
        (torch.tensor([[-1, 2]]), ValueError, r"token_ids: expected values in \[0, 11\), got values from -1 to 2"),
    ],
)
def test_bad_tokens(token_ids: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build(config())(token_ids)


def test_bad_steps() -> None:
    model = build(config())
    with pytest.raises(ValueError, match=r"token_ids: expected shape \[B\], got \(1, 1\)"):
        model.step(tokens(1, 1), model.init_cache(1))
    with pytest.raises(ValueError, match="cache: expected an entry 'block_stack'"):
        model.step(tokens(1), {})


def test_empty_batch() -> None:
    assert build(config())(tokens(0, 4)).shape == (0, 4, 11)


def test_tokens_that_are_no_tensor() -> None:
    model = build(pLSTMLMModelConfig(vocab_size=11, embedding_dim=8, num_blocks=1))
    with pytest.raises(TypeError, match=r"^token_ids: expected shape \[B, T\], got list"):
        model([[1, 2]])
    with pytest.raises(TypeError, match=r"^token_ids: expected shape \[B\], got list"):
        model.step([1], model.init_cache(1))
