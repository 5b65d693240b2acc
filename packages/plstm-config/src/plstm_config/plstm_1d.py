"""pLSTM on sequences."""

from dataclasses import field
from typing import ClassVar, Literal

from plstm_config.base import frozen, require
from plstm_config.checks import Kind
from plstm_config.convolution import Convolution1DLayerConfig
from plstm_config.interaction import InteractionLayerConfig
from plstm_config.parameters import Child


@frozen
class pLSTM1DLayerConfig(InteractionLayerConfig):
    """A causal pLSTM layer on sequences [B, T, input_dim]; see `InteractionLayerConfig` for the fields.

    Examples:
        >>> import plstm_config
        >>> config = plstm_config.pLSTM1DLayerConfig(input_dim=32, num_heads=4, JT=2, JV=2, JO=2)
        >>> config.DK, config.DV, config.source.JT
        (8, 4, 2)
    """

    kind: ClassVar[Kind] = "sequence"
    class_name: str = field(init=False, default="pLSTM1DLayer")
    JV: int = 4
    JT: int = 4
    JO: int = 4
    convolution: Convolution1DLayerConfig | None = None
    convolution_inputs: str = "STMDQKstP"
    implementation: Literal["auto", "recurrent", "chunkwise"] = "auto"

    def _complete(self) -> None:
        super()._complete()
        if self.input_dim < 1:
            return
        if self.additional_convolution:
            width = {"input_dim": self.input_dim}
            self._child("convolution", Convolution1DLayerConfig, width, self._types())
        else:
            require(
                self.convolution is None, "convolution: expected None, since additional_convolution=False, got a config"
            )

    def children(self) -> dict[str, Child]:
        """Those of every layer, the convolution and the gates."""
        gates = {"source": self.source, "transition": self.transition, "mark": self.mark}
        return {**super().children(), "conv": self.convolution, **gates}
