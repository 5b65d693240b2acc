"""pLSTM on sequences."""

from dataclasses import dataclass, field

from plstm_config.base import child, require
from plstm_config.convolution import Convolution1DLayerConfig
from plstm_config.interaction import InteractionLayerConfig


@dataclass(kw_only=True)
class pLSTM1DLayerConfig(InteractionLayerConfig):
    """A causal pLSTM layer on sequences [B, T, input_dim]; see [InteractionLayerConfig][] for the fields."""

    class_name: str = field(init=False, default="pLSTM1DLayer")
    JV: int = 4
    JT: int = 4
    JO: int = 4
    convolution: Convolution1DLayerConfig | None = None
    convolution_inputs: str = "STMDQKstP"
    levels: int = 8

    def _complete(self) -> None:
        super()._complete()
        known = self.implementation in ("auto", "recurrent", "chunkwise", "triton")
        require(known, f"implementation={self.implementation!r}: expected 'auto', 'recurrent', 'chunkwise' or 'triton'")
        if self.input_dim < 1:
            return
        if self.additional_convolution:
            width = {"input_dim": self.input_dim}
            self.convolution = child("convolution", self.convolution, Convolution1DLayerConfig, width, self._types())
        else:
            require(self.convolution is None, "convolution: expected None, since additional_convolution=False")
