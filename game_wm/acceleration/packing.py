"""Packing: the CPU's convolution weights are laid out once instead of at every call.

    model = pack(model)             # in place; the same frames in 16 bits, in 32 to rounding

A batch of one has few pixels for its many weights, so that laying them out takes as long as using them. The operator is
the one that PyTorch's own compiler calls for frozen weights (`torch.compile` with `freezing`).

Legend: B batch, C channels, h, w latent grid.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


class PackedConvolution(nn.Module):
    """An `nn.Conv2d` with its weights laid out for grids like the first input's. It can be saved, no longer trained."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.shape: list[list[int]] = [
            [int(n) for n in x] for x in (convolution.padding, convolution.stride, convolution.dilation)
        ]
        self.groups = convolution.groups
        self.packed: Tensor | None = None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = x_BCHW.to(self.weight.dtype).contiguous(memory_format=torch.channels_last)
        if self.packed is None:
            reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight  # type: ignore[attr-defined]
            self.packed = reorder(self.weight.to_mkldnn(), *self.shape, self.groups, [1, *x.shape[1:]])
        convolve = torch.ops.mkldnn._convolution_pointwise
        return convolve(x, self.packed, self.bias, *self.shape, self.groups, "none", [], "")


def pack(model: Network) -> Network:
    """The same model for play on a CPU, changed in place; on another device, or where PyTorch has been built without
    these convolutions, as it is."""
    if not torch.backends.mkldnn.is_available() or any(p.device.type != "cpu" for p in model.parameters()):
        return model
    for module in list(model.modules()):
        for name, part in list(module.named_children()):
            if isinstance(part, nn.Conv2d) and not isinstance(part.padding, str):
                setattr(module, name, PackedConvolution(part))
    return model
