"""Depthwise convolutions over sequences and grids."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from plstm_config import Convolution1DLayerConfig, Convolution2DLayerConfig
from plstm_config.checks import check_features
from plstm_torch.build import register
from plstm_torch.dtypes import cat
from plstm_torch.module import Module, ParameterGroup
from plstm_torch.ops._arguments import attach


def _padding(kernel_size: int, causal: bool) -> tuple[int, int]:
    """Zeros before and after an axis: all before where causal, else as centred as the size allows."""
    before = kernel_size - 1 if causal else (kernel_size - 1) // 2
    return before, kernel_size - 1 - before


def sequence_index(cu_seqlens: Int[Tensor, " S1"], length: int) -> Int[Tensor, " T"]:
    """The number of the packed sequence that each position belongs to.

    Args:
        cu_seqlens: sequence borders [S + 1], from 0 to `length`.
        length: number of positions T.

    Returns:
        Indices [T] into the S sequences.
    """
    positions = torch.arange(length, device=cu_seqlens.device)
    return torch.searchsorted(cu_seqlens[1:].contiguous(), positions, right=True)


@register(Convolution1DLayerConfig)
class Convolution1DLayer(Module):
    """Depthwise convolution over time: out[t] = b + sum_j w[j] x[t - k + 1 + j].

    Without the config's `causal` it is centred: (k - 1) // 2 stands in place of k - 1, so that outputs see positions
    behind them, too, and there are no steps.

    Parameters: `_conv.weight` [D, 1, k] and, if the config's `bias` is set, `_conv.bias` [D].

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> conv = plstm_torch.build(plstm_config.Convolution1DLayerConfig(input_dim=8, kernel_size=4))
        >>> x = torch.rand(2, 5, 8)
        >>> first, _ = conv.step(x[:, 0], conv.init_window(2))
        >>> torch.allclose(conv(x)[:, 0], first, atol=1e-6)
        True
    """

    config: Convolution1DLayerConfig
    _conv: ParameterGroup

    @property
    def kernel_size(self) -> int:
        """Positions that an output sees."""
        return self.config.kernel_size

    def init_window(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Float[Tensor, "B W D"]:
        """The window before the first step.

        Args:
            batch_size: number of sequences B.
            device: default: where the parameters are.
            dtype: default: the config's.

        Returns:
            Zeros [B, k - 1, D].

        Raises:
            ValueError: if the convolution is not causal.
        """
        self._require_causal("init_window")
        shape = (batch_size, self.kernel_size - 1, self.config.input_dim)
        return torch.zeros(shape, dtype=dtype or self.dtype, device=device or self._conv.weight.device)

    def forward(
        self, x: Float[Tensor, "B T D"], *, cu_seqlens: Int[Tensor, " S1"] | None = None
    ) -> Float[Tensor, "B T D"]:
        """Convolve sequences, with zeros around them.

        Args:
            x: sequences [B, T, input_dim] of any floating dtype.
            cu_seqlens: borders [S + 1] of sequences packed along T; no sequence sees its neighbours.

        Returns:
            Output of the same shape in the config's dtype.

        Raises:
            ValueError: if x has another rank or number of features.
        """
        check_features(x, "B T D", self.config.input_dim)
        if self.config.causal:
            rows = x.shape[0] if cu_seqlens is None else x.shape[0] * (cu_seqlens.shape[0] - 1)
            return self.extend(x, self.init_window(rows, x.device), cu_seqlens=cu_seqlens)[0]
        return self._centred(x.to(self.dtype), None if cu_seqlens is None else cu_seqlens.to(x.device))

    def extend(
        self,
        x: Float[Tensor, "B T D"],
        window: Float[Tensor, "BS W D"],
        *,
        cu_seqlens: Int[Tensor, " S1"] | None = None,
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "BS W D"]]:
        """Convolve the continuation of sequences.

        Args:
            x: the next T inputs [B, T, input_dim].
            window: the k - 1 inputs before them [B, k - 1, input_dim]; before each of the packed sequences
                [B * S, k - 1, input_dim].
            cu_seqlens: borders [S + 1] of sequences packed along T, or None.

        Returns:
            Output [B, T, input_dim] in the config's dtype, and the windows of the last k - 1 inputs.

        Raises:
            ValueError: if x has another rank or number of features, or the convolution is not causal.
        """
        self._require_causal("extend")
        check_features(x, "B T D", self.config.input_dim)
        inputs, before = x.to(self.dtype), window.to(self.dtype)
        if cu_seqlens is None:
            extended = cat([before, inputs], dim=1)
            output, after = self._convolve(extended), extended[:, x.shape[1] :]
        else:
            output, after = self._extend_packed(inputs, before, cu_seqlens.to(x.device))
        return output, after.to(window.dtype)

    def _require_causal(self, method: str) -> None:
        if not self.config.causal:
            raise ValueError(f"{method}: expected a causal convolution, got Convolution1DLayer with causal=False")

    def _convolve(self, x: Tensor) -> Tensor:
        """Convolve [B, k - 1 + T, D] to [B, T, D]."""
        length = x.shape[1] - self.kernel_size + 1
        bias = None if self._conv.bias is None else self._conv.bias.to(self.dtype)
        weight = self._conv.weight.to(self.dtype)
        if length < 1 or x.shape[0] == 0:  # nothing to compute, and torch refuses to
            return attach(x[:, : max(length, 0)], weight, *([] if bias is None else [bias]))
        return F.conv1d(x.transpose(1, 2), weight, bias, groups=self.config.input_dim).transpose(1, 2)

    def _centred(self, x: Tensor, cu_seqlens: Tensor | None) -> Tensor:
        """Convolve [B, T, D] with zeros on both sides of every sequence."""
        before, after = _padding(self.kernel_size, causal=False)
        if cu_seqlens is None:
            return self._convolve(F.pad(x, (0, 0, before, after)))
        # k - 1 zeros in front of every sequence, and the rest of a kernel behind the last one
        batch, length, dim = x.shape
        count, width = cu_seqlens.shape[0] - 1, self.kernel_size - 1
        places = torch.arange(length, device=x.device) + (sequence_index(cu_seqlens, length) + 1) * width
        extended = x.new_zeros(batch, length + count * width + after, dim).index_copy(1, places, x)
        return self._convolve(extended).index_select(1, places - before)

    def _extend_packed(self, x: Tensor, window: Tensor, cu_seqlens: Tensor) -> tuple[Tensor, Tensor]:
        # Each window goes in front of its sequence; the outputs inside of the windows, which mix neighbours, are left
        # out again.
        batch, length, dim = x.shape
        count, width = cu_seqlens.shape[0] - 1, self.kernel_size - 1
        places = torch.arange(length, device=x.device)
        places = places + (sequence_index(cu_seqlens, length) + 1) * width
        offsets = torch.arange(count, device=x.device)[:, None] * width + torch.arange(width, device=x.device)
        starts, ends = ((borders[:, None] + offsets).flatten() for borders in (cu_seqlens[:-1], cu_seqlens[1:]))
        extended = x.new_zeros(batch, length + count * width, dim).index_copy(1, places, x)
        extended = extended.index_copy(1, starts, window.reshape(batch, count * width, dim))
        after = extended.index_select(1, ends).reshape(batch * count, width, dim)
        return self._convolve(extended).index_select(1, places - width), after

    def step(
        self, x: Float[Tensor, "B D"], window: Float[Tensor, "B W D"]
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B W D"]]:
        """One step: the output for one new input, and the moved window.

        Args:
            x: next input [B, input_dim].
            window: the k - 1 inputs before it [B, k - 1, input_dim].

        Returns:
            Output [B, input_dim] in the config's dtype, and the next window.

        Raises:
            ValueError: if x has another rank or number of features, or the convolution is not causal.
        """
        self._require_causal("step")
        check_features(x, "B D", self.config.input_dim)
        extended = cat([window, x.unsqueeze(1).to(window.dtype)], dim=1)
        weight = self._conv.weight.squeeze(1).to(self.dtype)
        output = (extended.to(self.dtype) * weight.t()).sum(1)
        if self._conv.bias is not None:
            output = output + self._conv.bias.to(self.dtype)
        return output, extended[:, 1:]


@register(Convolution2DLayerConfig)
class Convolution2DLayer(Module):
    """Depthwise convolution over a grid, centred, or seeing only x' <= x and y' <= y if the config's `causal` is set.

    Parameters: `_conv.weight` [D, 1, kx, ky] and, if the config's `bias` is set, `_conv.bias` [D].

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> conv = plstm_torch.build(plstm_config.Convolution2DLayerConfig(input_dim=8, kernel_size=(3, 3)))
        >>> conv(torch.rand(2, 6, 5, 8)).shape  # depthwise, the grid keeps its size
        torch.Size([2, 6, 5, 8])
    """

    config: Convolution2DLayerConfig
    _conv: ParameterGroup

    def forward(self, x: Float[Tensor, "B X Y D"]) -> Float[Tensor, "B X Y D"]:
        """Convolve grids, with zeros beyond their borders.

        Args:
            x: grids [B, X, Y, input_dim] of any floating dtype.

        Returns:
            Output of the same shape in the config's dtype.

        Raises:
            ValueError: if x has another rank or number of features.
        """
        check_features(x, "B X Y D", self.config.input_dim)
        (left, right), (up, down) = self.padding
        return self.convolve(F.pad(x, (0, 0, up, down, left, right)))

    @property
    def padding(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Nodes that an output sees before and after its own, along X and along Y."""
        x, y = (_padding(size, self.config.causal) for size in self.config.kernel_size)
        return x, y

    def convolve(self, padded: Float[Tensor, "B X2 Y2 D"]) -> Float[Tensor, "B X Y D"]:
        """Convolve grids that already have around them what their nodes see.

        Args:
            padded: grids with `padding` more on each side [B, X2, Y2, input_dim].

        Returns:
            Output [B, X, Y, input_dim] in the config's dtype.
        """
        padded = padded.to(self.dtype)
        bias = None if self._conv.bias is None else self._conv.bias.to(self.dtype)
        weight = self._conv.weight.to(self.dtype)
        x, y = (side - size + 1 for side, size in zip(padded.shape[1:3], self.config.kernel_size, strict=True))
        if padded.shape[0] == 0 or x < 1 or y < 1:  # nothing to compute, and torch refuses to
            return attach(padded[:, : max(x, 0), : max(y, 0)], weight, *([] if bias is None else [bias]))
        output = F.conv2d(padded.permute(0, 3, 1, 2), weight, bias, groups=self.config.input_dim)
        return output.permute(0, 2, 3, 1)
