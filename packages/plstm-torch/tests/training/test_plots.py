import numpy as np
import pytest

from plstm_torch.training import plots
from plstm_torch.training.progress import Progress


@pytest.mark.parametrize("epochs", [0, 1, 3])
def test_curves_show_every_epoch_and_measure(epochs, tmp_path):
    lines = [
        {
            "step": 10.0 * number,
            "train_loss": 1.0 / number,
            "val_loss": 1.1 / number,
            "val_accuracy": 0.5 + 0.1 * number,
            "val_accuracy_96": 0.4,
        }
        for number in range(1, epochs + 1)
    ]
    figure = plots.curves(Progress(step_losses=[2.0] * 5 * epochs, steps_per_loss=2, epochs=lines), "val_accuracy")
    loss_axes, measure_axes = figure.axes
    assert len(loss_axes.lines) == (3 if epochs else 2)
    assert loss_axes.lines[0].get_xdata().max(initial=0) == 10 * epochs
    labels = [line.get_label() for line in measure_axes.lines]
    assert [label.split(":")[0] for label in labels] == (["val accuracy", "val accuracy 96"] if epochs else [])
    figure.savefig(tmp_path / "curves.png")


def test_wrong_answers_name_the_truth():
    figure = plots.image_grid(np.zeros((3, 4, 4)), ["1", "2", "3"], ["1", "7", "3"], columns=2)
    assert [axes.get_title() for axes in figure.axes] == ["1", "2, not 7", "3", ""]


def test_a_text_is_drawn_byte_by_byte(tmp_path):
    text = b"cost $5 and $6\n" + bytes(range(256))
    figure = plots.text_heat(text, np.linspace(0, 9, len(text)), columns=40)
    axes = figure.axes[0]
    assert len(axes.texts) == len(text)
    assert np.isfinite(axes.images[0].get_array().filled(np.nan)).sum() == len(text)
    figure.savefig(tmp_path / "text.png")


def test_no_global_figure_is_opened():
    import matplotlib.pyplot

    lines = [{"step": 1, "train_loss": 1.0, "val_accuracy": 1.0}]
    plots.curves(Progress(step_losses=[1.0], epochs=lines), "val_accuracy")
    assert matplotlib.pyplot.get_fignums() == []
