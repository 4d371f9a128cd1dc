"""Eight-bit arithmetic: convolutions and linear layers in int8, the decoder's too.

    model = quantise(model)         # in place, after `half` where there is bfloat16; for a CPU

Weights are rounded once, each output channel on a scale of its own; activations at every call, on one scale between
their least and their largest value (dynamic quantisation; Jacob et al., 2018). The products are PyTorch's own for
quantised models (oneDNN). The motion network and the layers that write latents stay as they were: their rounding
errors would add up from frame to frame. Eight bits halve the memory of the weights. Whether a frame is faster depends
on the machine: convolutions are, and rounding their inputs takes time.

Legend: B batch, C channels, O output channels, H, W grid, N rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from data_collect.errors import UserError
from game_wm.world import WorldModel

WEIGHT_STEPS = 127  # of a weight, either side of 0
LEAST_CHANNELS = 32  # of the input; a layer with fewer stays as it is

if torch.backends.mkldnn.is_available():
    # A compiler asks for the shapes of these operators' results.
    torch.library.register_fake("onednn::qconv_prepack", lambda weight, *_: torch.empty_like(weight))
    torch.library.register_fake("onednn::qlinear_prepack", lambda weight, *_: torch.empty_like(weight.mT))


class Quantised(nn.Module):
    """Base of the two layers: rounded weights (O, ...), their scales (O,), the layer's own bias."""

    scale: Tensor
    zeros: Tensor

    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        weight = layer.weight.detach().float()
        scale = weight.abs().flatten(1).amax(1).clamp_min(1e-8) / WEIGHT_STEPS
        rounded = (weight / scale.view(-1, *[1] * (weight.ndim - 1))).round().to(torch.int8)
        self.weight = nn.Parameter(rounded.contiguous(), requires_grad=False)
        self.register_buffer("scale", scale)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().float(), requires_grad=False)
        self.register_buffer("zeros", torch.zeros(len(scale), dtype=torch.int32), persistent=False)
        self.out_dtype = layer.weight.dtype
        self.packed: Tensor | None = None

    def laid_out(self, shape: list[int]) -> Tensor:
        """The weights as oneDNN wants them for inputs of this shape; a compiler does it itself."""
        raise NotImplementedError

    def prepared(self, shape: list[int]) -> Tensor:
        if torch.compiler.is_compiling():
            return self.laid_out(shape)
        if self.packed is None:
            self.packed = self.laid_out(shape)
        return self.packed

    @staticmethod
    def rounded(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Activations as uint8, their scale and what stands for 0 (1,)."""
        least, most = (bound.float().view(1) for bound in torch.aminmax(x))
        least, most = least.clamp_max(0), most.clamp_min(0)
        scale = ((most - least) / 255).clamp_min(1e-8)
        zero = (-least / scale).round()
        return (x.float() / scale + zero).round().clamp(0, 255).to(torch.uint8), scale, zero.int()


class QuantisedConvolution(Quantised):
    """An `nn.Conv2d` in int8, for grids like the first input's."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__(layer)
        stride, padding, dilation = ([int(n) for n in x] for x in (layer.stride, layer.padding, layer.dilation))
        self.shape = stride, padding, dilation, layer.groups

    def laid_out(self, shape: list[int]) -> Tensor:
        return torch.ops.onednn.qconv_prepack(self.weight, self.scale, 1.0, 128, *self.shape, [1, *shape[1:]])

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x, scale, zero = self.rounded(x_BCHW.contiguous(memory_format=torch.channels_last))
        convolve = torch.ops.onednn.qconv_pointwise.tensor
        weight, about = self.prepared(list(x.shape)), (self.scale, self.zeros, self.bias)
        return convolve(x, scale, zero, weight, *about, *self.shape, 1.0, 0, self.out_dtype, "none", [], "")


class QuantisedLinear(Quantised):
    def laid_out(self, shape: list[int]) -> Tensor:
        return torch.ops.onednn.qlinear_prepack(self.weight, shape)

    def forward(self, x_NC: Tensor) -> Tensor:
        x, scale, zero = self.rounded(x_NC.flatten(0, -2))
        multiply, weight = torch.ops.onednn.qlinear_pointwise.tensor, self.prepared(list(x.shape))
        about = weight, self.scale, self.zeros, self.bias
        y = multiply(x, scale, zero, *about, 1.0, 0, self.out_dtype, "none", [], "")
        return y.unflatten(0, x_NC.shape[:-1])


def quantise(model: WorldModel) -> WorldModel:
    """The same model in eight bits, changed in place; it can be played, no longer trained.

    Raises UserError where PyTorch has no such arithmetic: on a GPU, or built without oneDNN.
    """
    device = next(model.parameters()).device.type
    if device != "cpu" or not torch.backends.mkldnn.is_available():
        raise UserError(f"eight bits are for the processor, not for {device}: take --precision 16, or --device cpu")
    dynamics = model.dynamics
    kept = {dynamics.denoiser.conv_out, dynamics.denoiser.gate, dynamics.context.outcome, model.tokenizer.encoder[-1]}
    parts: list[nn.Module] = [model.tokenizer, model.dynamics, *model.memory.networks()]
    for part in parts:
        for module in list(part.modules()):
            for name, layer in list(module.named_children()):
                if not isinstance(layer, nn.Conv2d | nn.Linear) or layer in kept:
                    continue
                if layer.weight.shape[1] >= LEAST_CHANNELS:
                    kind = QuantisedConvolution if isinstance(layer, nn.Conv2d) else QuantisedLinear
                    setattr(module, name, kind(layer))  # type: ignore[arg-type]
    model.quantised = True
    return model
