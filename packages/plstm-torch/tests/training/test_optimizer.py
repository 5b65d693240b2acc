import pytest
from torch import nn

from plstm_torch.training.optimizer import learning_rate, make_optimizer
from plstm_torch.training.settings import TrainingSettings


def test_every_parameter_is_in_exactly_one_group():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    model[0].weight.requires_grad_(True)
    model[1].weight.requires_grad_(False)
    optimizer = make_optimizer(model, TrainingSettings(weight_decay=0.1))
    groups = {group["weight_decay"]: len(group["params"]) for group in optimizer.param_groups}
    assert groups == {0.1: 1, 0.0: 2}


def test_the_learning_rate_rises_in_a_line_and_falls_like_a_cosine():
    settings = TrainingSettings(learning_rate=2.0, warmup_epochs=2, final_learning_rate=0.1)
    rates = [learning_rate(step, 105, 5, settings) for step in range(106)]
    assert rates[:10] == pytest.approx([2.0 * (i + 1) / 11 for i in range(10)])
    assert rates[10] == 2.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[105] == pytest.approx(0.2)
    middle = 10 + 95 / 2
    assert (rates[int(middle)] + rates[int(middle) + 1]) / 2 == pytest.approx(1.1, rel=1e-3)


def test_a_run_shorter_than_its_warm_up_still_reaches_the_full_rate():
    settings = TrainingSettings(learning_rate=1.0, warmup_epochs=10)
    assert max(learning_rate(step, 3, 100, settings) for step in range(3)) == 1.0
    assert learning_rate(0, 1, 100, settings) == 1.0
