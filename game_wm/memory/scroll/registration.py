"""How far the screen has moved between two pictures, read off the pictures alone.

All steps within `REACH` are tried, and the peaks of the phase correlation (Kuglin and Hines, 1975), which may lie
farther away. What moves by itself outvotes nothing: a pixel that is far off counts no more than one that is off by
`CAPPED`. The screen's `fixed` parts (score, lives) do not vote.

A step (down, right) says where the screen went: `now[p]` shows what `before[p + step]` showed.

Legend: N pairs of pictures, K candidates, H, W pixels.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

REACH = 8  # pixels in each direction, of the steps that are all tried
PEAKS = 4  # of the phase correlation, that are tried beside them
COMPARED = 64  # pixels along a picture's side that are compared, about
CAPPED = 24  # grey levels: a pixel that is further off counts as this much off
SHORTER = 0.02  # grey levels for a pixel of the step: of a repeated pattern the shorter step is taken
LEAST_SHARED = 0.3  # of the pixels, which two pictures must share
TOLERANCE = 24  # grey levels within which two pixels agree, in every colour
CUT = 0.25  # of the pixels: where fewer agree after any step, the picture is of another place
FEWER = 0.08  # of the pixels, than usual: where so many fewer agree, the screen may have flipped


class Observed(NamedTuple):
    """Steps int64 (N, 2), down and right, and the share (N,) of the pixels that agree after them."""

    steps: Tensor
    agreement: Tensor


def observe_steps(before_NHWC: Tensor, now_NHWC: Tensor, fixed_HW: Tensor) -> Observed:
    """The steps between pictures uint8 (N, H, W, 3)."""
    near = torch.tensor(list(product(range(-REACH, REACH + 1), repeat=2)), device=now_NHWC.device)
    then, now = (x.short().permute(0, 3, 1, 2).contiguous() for x in (before_NHWC, now_NHWC))
    cost = [_cost(then, now, ~fixed_HW, *step) for step in near.tolist()]
    far = peaks(before_NHWC, now_NHWC, fixed_HW)
    shown, counts = seen_from(before_NHWC, fixed_HW, far)
    off = apart(shown, now_NHWC[:, None]).clamp_max(CAPPED) * counts
    cost.extend((off.sum((-1, -2)) / counts.sum((-1, -2)).clamp_min(1)).unbind(1))
    steps = torch.cat((near.expand(len(now), -1, -1), far), 1)
    size = torch.tensor(fixed_HW.shape, device=steps.device)
    shared = (size - steps.abs()).clamp_min(0).prod(-1) / size.prod()
    total = torch.stack(cost, 1) + SHORTER * steps.abs().sum(-1)
    best = total.masked_fill(shared < LEAST_SHARED, torch.inf).argmin(1, keepdim=True)
    taken = steps.gather(1, best[..., None].expand(-1, -1, 2))
    shown, counts = seen_from(before_NHWC, fixed_HW, taken)
    agreement = ((alike(shown, now_NHWC[:, None]) & counts).sum((-1, -2)) / counts.sum((-1, -2)).clamp_min(1))[:, 0]
    return Observed(taken[:, 0], agreement)


def put_right(around_BHW4: Tensor, now_BHWC: Tensor, fixed_HW: Tensor) -> Tensor:
    """By how much a place is off, int64 (B, 2), a pixel at most: `around` is what was remembered there and a pixel
    further on each side, uint8, its last channel 0 where nothing is known. Zero where too little is."""
    (height, width), device = fixed_HW.shape, now_BHWC.device
    tried = sorted(product((-1, 0, 1), repeat=2), key=lambda at: abs(at[0]) + abs(at[1]))
    offsets = torch.tensor(tried, device=device)
    seen = around_BHW4.unfold(1, height, 1).unfold(2, width, 1)[:, offsets[:, 0] + 1, offsets[:, 1] + 1]
    seen = seen.permute(0, 1, 3, 4, 2)
    votes = (seen[..., 3] > 0) & ~fixed_HW
    counts = votes.sum((2, 3))
    total = (apart(seen, now_BHWC[:, None]).clamp_max(CAPPED) * votes).sum((2, 3))
    cost = (total / counts.clamp_min(1)).masked_fill(counts < LEAST_SHARED * height * width, CAPPED)
    cost[:, 0] -= SHORTER
    return offsets[cost.argmin(1)]


def alike(one_BHWC: Tensor, other_BHWC: Tensor) -> Tensor:
    """Where (B, H, W) two pictures uint8 agree in their colours."""
    return apart(one_BHWC, other_BHWC) <= TOLERANCE


def apart(one_BHWC: Tensor, other_BHWC: Tensor) -> Tensor:
    """How far two pictures uint8 are apart (B, H, W), in grey levels of the colour that is most so; a fourth channel
    does not count."""
    one, other = one_BHWC[..., :3], other_BHWC[..., :3]
    return (torch.maximum(one, other) - torch.minimum(one, other)).amax(-1)


def _cost(then_N3HW: Tensor, now_N3HW: Tensor, votes_HW: Tensor, down: int, right: int) -> Tensor:
    """How far (N,) the pixels are off on average after this step, in grey levels."""
    stride = max(1, round(max(votes_HW.shape) / COMPARED))
    rows, columns = (slice(max(0, -by), min(0, -by) or None, stride) for by in (down, right))
    from_rows, from_columns = (slice(max(0, by), min(0, by) or None, stride) for by in (down, right))
    votes = votes_HW[rows, columns] & votes_HW[from_rows, from_columns]
    off = (then_N3HW[:, :, from_rows, from_columns] - now_N3HW[:, :, rows, columns]).abs_().amax(1)
    return (off.clamp_max_(CAPPED) * votes).sum((1, 2)) / votes.sum().clamp_min(1)


def peaks(before_NHWC: Tensor, now_NHWC: Tensor, fixed_HW: Tensor) -> Tensor:
    """Int64 (N, K, 2): the steps at the highest peaks of the phase correlation."""
    height, width = fixed_HW.shape
    spectra = []
    for picture in (before_NHWC, now_NHWC):
        grey = picture.float().mean(3)
        spectra.append(torch.fft.rfft2((grey - grey.mean((1, 2), keepdim=True)) * ~fixed_HW))
    cross = spectra[0] * spectra[1].conj()
    found = torch.fft.irfft2(cross / cross.abs().clamp_min(1e-3), s=(height, width)).flatten(1).topk(PEAKS).indices
    down, right = found // width, found % width
    return torch.stack((down - height * (down > height // 2), right - width * (right > width // 2)), -1)


def seen_from(before_NHWC: Tensor, fixed_HW: Tensor, steps_NK2: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures (N, K, H, W, 3) after these steps, and where (N, K, H, W) they show the world."""
    shown, inside = shifted(before_NHWC, steps_NK2)
    covered, _ = shifted(fixed_HW.expand(len(steps_NK2), -1, -1), steps_NK2)
    return shown, inside & ~fixed_HW & ~covered


def shifted(picture_BHW: Tensor, steps_B2: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures (B, H, W, ...) as a screen shows them that has gone a step (B, 2) on, or K steps (B, K, 2) each, their
    border repeated where they do not reach, and where they do (B, H, W), or (B, K, H, W)."""
    height, width = picture_BHW.shape[1:3]
    rows = torch.arange(height, device=steps_B2.device) + steps_B2[..., :1]
    columns = torch.arange(width, device=steps_B2.device) + steps_B2[..., 1:]
    down, right = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    inside = (down == rows)[..., :, None] & (right == columns)[..., None, :]
    first = torch.arange(0, len(steps_B2) * height, height, device=steps_B2.device)
    down = down + first.view(-1, *[1] * (steps_B2.dim() - 1))
    which = (down * width)[..., :, None] + right[..., None, :]
    return picture_BHW.flatten(0, 2).index_select(0, which.flatten()).unflatten(0, which.shape), inside
