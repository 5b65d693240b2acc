"""Streaming: the draws of generate, and where sequences end."""

import pytest
import torch
from torch import nn

from plstm_config import pLSTMLMModelConfig
from plstm_torch import build
from plstm_torch.endings import Endings


@pytest.fixture
def model(randomize) -> nn.Module:
    return randomize(build(pLSTMLMModelConfig(vocab_size=11, embedding_dim=8, num_blocks=1)))


def test_the_tokens_are_those_of_generate(model) -> None:
    prompt = torch.randint(0, 11, (2, 3))
    expected = model.generate(prompt, 6, seed=4, top_k=5)
    model.train()
    found = []
    for tokens in model.stream(prompt, 6, seed=4, top_k=5):
        assert model.training  # between two tokens it is the caller's
        found.append(tokens)
    assert torch.equal(torch.stack(found, 1), expected[:, 3:])
    assert not found[0].requires_grad


def test_sequences_end_each_on_its_own(model) -> None:
    prompt = torch.randint(0, 11, (3, 4))
    whole = model.generate(prompt, 12, seed=1)[:, 4:]
    for options, ends in (({"eos": 5}, [[5]]), ({"stop": [[3], [7, 1]]}, [[3], [7, 1]])):
        found = torch.stack(list(model.stream(prompt, 12, seed=1, **options)), 1)
        lengths = []
        for row, tokens in zip(found.tolist(), whole.tolist(), strict=True):
            reached = [
                place for place in range(1, 13) if any(tokens[max(0, place - len(end)) : place] == end for end in ends)
            ]
            length = reached[0] if reached else 12
            lengths.append(length)
            assert row[:length] == tokens[:length]
            assert set(row[length:]) <= {options.get("eos", 0)}
        assert found.shape[1] == max(lengths)
        assert torch.equal(model.generate(prompt, 12, seed=1, **options), torch.cat([prompt, found], 1))


def test_continuations_of_a_list_end_where_they_end(model) -> None:
    prompts = [torch.randint(0, 11, (length,)) for length in (1, 4, 2)]
    whole = model.generate(prompts, 12, seed=[3, 1, 2])
    for options, ends in (({"eos": 5}, [[5]]), ({"stop": [[3], [7, 1]]}, [[3], [7, 1]])):
        ended = model.generate(prompts, 12, seed=[3, 1, 2], **options)
        for prompt, tokens, all_tokens in zip(prompts, ended, whole, strict=True):
            assert torch.equal(tokens, all_tokens[: len(tokens)])
            new = tokens[len(prompt) :].tolist()
            cut = [
                any(new[max(0, place - len(end)) : place] == end for end in ends) for place in range(1, len(new) + 1)
            ]
            assert not any(cut[:-1])
            assert cut[-1] or len(new) == 12
    assert any(len(one) < len(other) for one, other in zip(ended, whole, strict=True))


def test_a_stop_is_seen_across_tokens() -> None:
    endings = Endings(None, [[1, 1, 2]], rows=1)
    for token in (1, 1, 1):
        endings.take(torch.tensor([token]))
        assert not endings.all_ended
    endings.take(torch.tensor([2]))
    assert endings.all_ended
    assert endings.take(torch.tensor([9])).tolist() == [0]


def test_what_is_refused(model) -> None:
    prompt = torch.zeros(1, 2, dtype=torch.long)
    for options, message in (
        ({"eos": -1}, "eos: expected None or a token >= 0, got -1"),
        ({"stop": [[]]}, "stop: expected sequences of at least one token"),
        ({"temperature": -1.0}, "temperature: expected a finite number >= 0"),
    ):
        with pytest.raises(ValueError, match=message):
            list(model.stream(prompt, 1, **options))
        with pytest.raises(ValueError, match=message):
            model.generate(prompt, 1, **options)
    for others, message in (
        ({"eos": "."}, "eos: expected None or a token, got str"),
        ({"eos": True}, "eos: expected None or a token, got bool"),
        ({"stop": [1, 2]}, r"stop: expected a list of lists of tokens, got \[1, 2\]"),
        ({"stop": ["ab"]}, r"stop: expected a list of lists of tokens, got \['ab'\]"),
    ):
        with pytest.raises(TypeError, match=message):
            model.generate(prompt, 1, **others)
    with pytest.raises(ValueError, match=r"token_ids: expected a prompt \[B, T\]"):
        list(model.stream(prompt[:, :0], 1))
    with pytest.raises(ValueError, match="max_new_tokens: expected an integer >= 0, got -1"):
        list(model.stream(prompt, -1))
