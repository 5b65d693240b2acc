"""The vision model for transformers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformers.utils import ModelOutput

from plstm_config import pLSTMVisionModelConfig
from plstm_torch.hf.base import PlstmPreTrainedModel
from plstm_torch.hf.configuration import PlstmConfig
from plstm_torch.models.vision import pLSTMVisionModel


@dataclass
class PlstmImageClassifierOutput(ModelOutput):
    """What `PlstmForImageClassification` returns.

    Attributes:
        loss: loss, where labels were given.
        logits: logits [B, classes].
        hidden_states: patch features [B, X, Y, dim] before the first block and after each, the last ones normed, with
            `output_hidden_states`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class PlstmForImageClassification(PlstmPreTrainedModel):
    """`pLSTMVisionModel` for pipelines and the Trainer of transformers.

    Images are [B, channels, height, width] as everywhere there, whatever the wrapped config says.

    Raises:
        ValueError: the config's pooling leaves no head for classes.
    """

    plain_config = pLSTMVisionModelConfig
    main_input_name = "pixel_values"

    def __init__(self, config: PlstmConfig) -> None:
        super().__init__(config)
        if self.head is None:
            raise ValueError(f"config: expected a model with a head, got pooling={config.plstm.pooling!r}")

    def forward(
        self,
        pixel_values: Float[Tensor, "B C height width"],
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> PlstmImageClassifierOutput | tuple[Any, ...]:
        """Classify images.

        Args:
            pixel_values: images [B, channels, height, width] of any size that the patches tile.
            labels: classes [B]; with `problem_type` "multi_label_classification" or "regression" values [B, classes].
            output_hidden_states: whether to return the features between the blocks.
            return_dict: false for a tuple.
            **kwargs: arguments of the loss; others have no effect.

        Returns:
            The outputs by name, or those that are not None as a tuple.

        Raises:
            TypeError: the pixels are integers.
            ValueError: wrong rank or number of channels, or a size that the patches do not tile.
        """
        plain: pLSTMVisionModel = self.__dict__["plain"]
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        pixels = pixel_values if plain.config.channels_first else pixel_values.permute(0, 2, 3, 1)
        layers: tuple[Tensor, ...] | None = None
        if output_hidden_states:
            *before, (grid, token) = plain.encode(pixels)
            grid, token = plain.norm(grid), None if token is None else plain.norm(token)
            layers = (*(earlier for earlier, _ in before), grid)
            logits = plain._classify(grid, token)
        else:
            logits = plain(pixels)
        loss = None
        if labels is not None:
            loss = self.loss_function(labels, logits, self.config, **kwargs)
        output = PlstmImageClassifierOutput(loss, logits, layers)
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return output if as_dict else output.to_tuple()
