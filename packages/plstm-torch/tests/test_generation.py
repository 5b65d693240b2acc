"""Sampling: options, seeds, and the parallel prompt followed by steps."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from plstm_config import pLSTMLMModelConfig
from plstm_torch import build
from plstm_torch.generation import sample_tokens

LOGITS = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).expand(4000, 4)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def frequencies(**options: object) -> list[float]:
    drawn = sample_tokens(LOGITS, generator=generator(), **options)
    return (torch.bincount(drawn, minlength=4) / 4000).tolist()


@pytest.fixture
def model(randomize: Callable[[nn.Module], nn.Module]) -> nn.Module:
    config = pLSTMLMModelConfig(vocab_size=11, embedding_dim=8, num_blocks=1, dtype="float64", param_dtype="float64")
    return randomize(build(config))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.5, 0.3, 0.15, 0.05]),
        ({"temperature": 0.0}, [1.0, 0.0, 0.0, 0.0]),
        ({"temperature": 0.5}, [0.685, 0.247, 0.062, 0.007]),
        ({"top_k": 1}, [1.0, 0.0, 0.0, 0.0]),
        ({"top_k": 2}, [0.625, 0.375, 0.0, 0.0]),
        ({"top_k": 9}, [0.5, 0.3, 0.15, 0.05]),
        ({"top_p": 0.6}, [0.625, 0.375, 0.0, 0.0]),
        ({"top_p": 0.01}, [1.0, 0.0, 0.0, 0.0]),
        ({"top_p": 1.0}, [0.5, 0.3, 0.15, 0.05]),
        ({"top_k": 3, "top_p": 0.9}, [0.526, 0.316, 0.158, 0.0]),
    ],
)
def test_frequencies(options: dict[str, object], expected: list[float]) -> None:
    measured = frequencies(**options)
    for share, wanted in zip(measured, expected, strict=True):
        # five standard deviations of a binomial share; exact where the share is 0 or 1
        assert abs(share - wanted) <= 5 * (wanted * (1 - wanted) / 4000) ** 0.5 + 1e-3 * (0 < wanted < 1)


@pytest.mark.parametrize("temperature", [0.0, 1e-320, 1e-40, 1e-31, 1e-20])
def test_a_tiny_temperature_is_greedy(temperature: float) -> None:
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        drawn = sample_tokens(LOGITS.to(dtype), temperature=temperature, generator=generator())
        assert torch.equal(drawn, LOGITS.to(dtype).argmax(-1))


def test_greedy_generation_follows_the_full_pass(model: nn.Module) -> None:
    prompt = torch.randint(0, 11, (2, 3))
    generated = model.generate(prompt, 6, temperature=0.0)
    expected = prompt
    for _ in range(6):
        expected = torch.cat([expected, model(expected)[:, -1:].argmax(-1)], 1)
    assert torch.equal(generated, expected)


def test_the_seed_decides(model: nn.Module) -> None:
    prompt = torch.randint(0, 11, (2, 3))
    first = model.generate(prompt, 20, seed=1)
    torch.manual_seed(99)
    assert torch.equal(first, model.generate(prompt, 20, seed=1))
    assert not torch.equal(first, model.generate(prompt, 20, seed=2))


def test_the_global_random_state_is_left_alone(model: nn.Module) -> None:
    before = torch.get_rng_state()
    model.generate(torch.zeros(1, 1, dtype=torch.long), 3)
    assert torch.equal(before, torch.get_rng_state())


def test_generation_keeps_mode_and_prompt(model: nn.Module) -> None:
    prompt = torch.randint(0, 11, (2, 3))
    model.train()
    generated = model.generate(prompt, 2, seed=0)
    assert model.training
    assert all(part.training for part in model.modules())
    assert torch.equal(generated[:, :3], prompt)
    assert not generated.requires_grad
    assert torch.equal(model.generate(prompt, 0), prompt)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature: expected a finite number >= 0"),
        ({"temperature": float("nan")}, "temperature: expected a finite number >= 0"),
        ({"top_k": 0}, "top_k: expected None or an integer >= 1, got 0"),
        ({"top_p": 0.0}, r"top_p: expected None or a number in \(0, 1\], got 0\.0"),
        ({"top_p": 1.5}, "top_p: expected None or a number"),
        ({"max_new_tokens": -1}, "max_new_tokens: expected an integer >= 0, got -1"),
    ],
)
def test_bad_options(model: nn.Module, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.generate(torch.zeros(1, 2, dtype=torch.long), **{"max_new_tokens": 1, **options})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"temperature": 10**400}, ValueError, "temperature: expected a finite number >= 0 .*, got a number of more"),
        ({"temperature": "warm"}, TypeError, "temperature: expected a number, got str"),
        ({"temperature": None}, TypeError, "temperature: expected a number, got NoneType"),
        ({"top_k": 2.5}, TypeError, "top_k: expected None or an integer, got float"),
        ({"top_p": "all"}, TypeError, "top_p: expected None or a number, got str"),
        ({"max_new_tokens": "2"}, TypeError, "max_new_tokens: expected an integer, got str"),
        ({"max_new_tokens": True}, TypeError, "max_new_tokens: expected an integer, got bool"),
        ({"seed": "a"}, TypeError, "seed: expected an integer, got str"),
        ({"seed": 2**70}, ValueError, "seed: expected an integer of 64 bits"),
        ({"seed": [1.5]}, TypeError, "seed: expected an integer, got float"),
    ],
)
def test_options_that_are_no_numbers(model: nn.Module, options: dict[str, object], error: type, message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        model.generate(torch.zeros(1, 2, dtype=torch.long), **{"max_new_tokens": 1, **options})


def test_an_empty_prompt_is_refused(model: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"token_ids: expected a prompt \[B, T\] with T >= 1, got shape \(1, 0\)"):
        model.generate(torch.zeros(1, 0, dtype=torch.long), 3)


def prompts_of(*lengths: int) -> list[torch.Tensor]:
    return [torch.randint(0, 11, (length,)) for length in lengths]


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"seed": [5, 6, 7, 8]}, {"seed": [1, 1, 2, 2], "top_k": 3}])
def test_prompts_of_any_length_are_continued_as_if_alone(model: nn.Module, options: dict[str, object]) -> None:
    prompts = prompts_of(3, 1, 8, 3)
    found = model.generate(prompts, 9, **options)
    for number, prompt in enumerate(prompts):
        own = {**options, "seed": options["seed"][number]} if "seed" in options else options
        assert torch.equal(found[number], model.generate(prompt.unsqueeze(0), 9, **own)[0])
    same = model.generate(torch.stack([prompts[0], prompts[3]]), 9, **{**options, "seed": [5, 8]})
    assert same.shape == (2, 12)


def test_padding_does_change_the_logits(model: nn.Module) -> None:
    prompt = torch.randint(1, 11, (1, 4))
    padded = torch.cat([prompt.new_zeros(1, 3), prompt], 1)
    assert not torch.allclose(model(padded)[:, 3:], model(prompt))
    _, cache = model(prompt, return_cache=True)
    _, other = model(torch.cat([prompt, prompt.new_zeros(1, 3)], 1), return_cache=True)
    following = [model.step(prompt[:, 0], state)[0] for state in (cache, other)]
    assert not torch.allclose(*following)


def test_no_prompts_and_no_tokens(model: nn.Module) -> None:
    assert model.generate([], 3) == []
    prompts = prompts_of(2, 4)
    assert all(torch.equal(*pair) for pair in zip(model.generate(prompts, 0), prompts, strict=True))


@pytest.mark.parametrize(
    ("prompts", "options", "error", "message"),
    [
        ([torch.zeros(0, dtype=torch.long)], {}, ValueError, r"token_ids\[0\]: expected a prompt \[T\] with T >= 1"),
        ([torch.zeros(1, 1, dtype=torch.long)], {}, ValueError, r"token_ids\[0\]: expected a prompt \[T\]"),
        ([[1, 2]], {}, TypeError, "token_ids: expected a tensor .* or a list of tensors"),
        ("text", {}, TypeError, "token_ids: expected a tensor"),
        ([torch.zeros(1, dtype=torch.long)], {"seed": [1, 2]}, ValueError, "seed: expected one for each of 1 prompts"),
    ],
)
def test_bad_prompts(model: nn.Module, prompts: object, options: dict[str, object], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        model.generate(prompts, 2, **options)
