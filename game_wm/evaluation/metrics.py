"""Measures of pictures and of sets of pictures: small pure functions.

    psnr(truth, dream)                      # (B,) decibels
    psnr(truth, dream, moving(truth, median_picture(episode)))  # where something moves: game_wm/pictures.py
    low, high = bootstrap(psnr_per_episode) # 95 % interval of the mean over episodes

Legend: B pictures, T frames of an episode, H height, W width in pixels, E episodes, N and M samples, D dimensions; of
`kernel_means` S and T are groups of samples (a dream, a play). Frames are uint8 (B, H, W, 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

# An error of less than one grey level of 256 cannot be seen: it counts as one, so that equal pictures have 48.1 dB.
PSNR_CAP = 20 * math.log10(255)


def unit(frames_BHWC: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) -> float (B, 3, H, W) in [0, 1]."""
    return frames_BHWC.permute(0, 3, 1, 2).float().div(255)


def squared_error(a_BHWC: Tensor, b_BHWC: Tensor, mask_BHW: Tensor | None = None) -> np.ndarray:
    """Sum of squared errors and number of values of each pair, (B, 2) float64; within the mask only.

    In NumPy: the frames may lie on a device without 64 bits.
    """
    a, b = (np.asarray(frames.cpu(), np.float64) for frames in (a_BHWC, b_BHWC))
    error = np.square(a - b).sum(-1)  # (B, H, W)
    mask = np.ones_like(error) if mask_BHW is None else np.asarray(mask_BHW.cpu(), np.float64)
    return np.stack([(error * mask).sum((1, 2)), mask.sum((1, 2)) * a.shape[-1]], 1)


def psnr(a_BHWC: Tensor, b_BHWC: Tensor, mask_BHW: Tensor | None = None) -> np.ndarray:
    """Peak signal-to-noise ratio of each pair in dB (B,), at most `PSNR_CAP`; NaN where the mask is empty."""
    error, count = squared_error(a_BHWC, b_BHWC, mask_BHW).T
    with np.errstate(invalid="ignore"):  # 0/0 is NaN, on purpose
        return _decibels(error / count)


def pooled_psnr(values: np.ndarray) -> float:
    """PSNR in dB over all pixels of all episodes, from their `squared_error` (E, 2); NaN rows are left out.

    A mean of the episodes' PSNR would flatter "repeat the last frame": a few episodes of 48 dB, in which somebody
    stands still, would hide how wrong it is in the others.
    """
    error, count = values[~np.isnan(values).any(1)].sum(0)
    return float(_decibels(error / count)) if count else math.nan


def _decibels(mse: np.ndarray) -> np.ndarray:
    return 20 * math.log10(255) - 10 * np.log10(np.maximum(mse, 1))


def ssim(a_BHWC: Tensor, b_BHWC: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004; Gaussian window of 1.5 pixels) of each pair (B,)."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    value = structural_similarity_index_measure(unit(a_BHWC), unit(b_BHWC), data_range=1.0, reduction="none")
    assert isinstance(value, Tensor)
    return value


def gradient(frames_BHWC: Tensor) -> Tensor:
    """Mean gradient magnitude of the luminance of each picture (B,), in grey levels per pixel: what blur takes away."""
    grey = frames_BHWC.float() @ torch.tensor([0.299, 0.587, 0.114], device=frames_BHWC.device)
    across = grey[:, :-1, 1:] - grey[:, :-1, :-1]
    down = grey[:, 1:, :-1] - grey[:, :-1, :-1]
    return torch.sqrt(across.square() + down.square()).mean((1, 2))


def mean(values: np.ndarray) -> float:
    """Mean over episodes, those without a value (NaN) left out; NaN when none has one."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else math.nan


def ratio(values: np.ndarray) -> float:
    """Sum of the first column over the sum of the second, (E, 2) -> one figure; steadier than a mean of ratios."""
    present = values[~np.isnan(values).any(1)]
    below = float(present[:, 1].sum())
    return float(present[:, 0].sum()) / below if below else math.nan


def bootstrap(
    values: np.ndarray, statistic: Callable[[np.ndarray], float] = mean, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of `statistic` over resampled episodes (first axis), widened to hold `statistic(values)`
    where it does not; NaN rows are left out first. NaN where fewer than two are left: one tells of no spread."""
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values).reshape(len(values), -1).any(1)]
    if len(values) < 2:
        return math.nan, math.nan
    generator = np.random.default_rng(seed)
    drawn = [statistic(values[generator.integers(len(values), size=len(values))]) for _ in range(resamples)]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    point = statistic(values)
    return min(float(low), point), max(float(high), point)


def figure(
    name: str, values: np.ndarray, statistic: Callable[[np.ndarray], float] = mean
) -> dict[str, float | list[float]]:
    """A figure of a card over episodes (first axis), and its `bootstrap` interval."""
    return {name: statistic(values), f"{name}_interval": list(bootstrap(values, statistic))}


class Components:
    """Projection on the `count` principal components of the samples that it is made from (N, D)."""

    def __init__(self, samples: np.ndarray, count: int = 64) -> None:
        self.mean = samples.mean(0)
        _, _, rows = np.linalg.svd(samples - self.mean, full_matrices=False)
        self.rows = rows[:count]

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """(N, D) -> (N, at most count)."""
        return (samples - self.mean) @ self.rows.T


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Squared Fréchet distance of the Gaussians fitted to two sets (N, D), (M, D): |μa-μb|² + tr(Ca + Cb - 2√(CaCb)).

    0 for equal sets. It grows as sets get smaller: compare only distances between sets of the same sizes. For the same
    reason it has no bootstrap interval: distances of resampled sets do not lie around this one.
    """
    cov_a, cov_b = np.atleast_2d(np.cov(a, rowvar=False)), np.atleast_2d(np.cov(b, rowvar=False))
    root = _root(cov_a)
    # √(Ca·Cb) has the trace of √(√Ca·Cb·√Ca), which is symmetric and needs no complex arithmetic
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(0)).sum()
    value = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross
    return max(float(value), 0.0)


def _root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T


def kernel_means(a_SND: np.ndarray, b_TMD: np.ndarray) -> np.ndarray:
    """Mean of the polynomial kernel (x·y / D + 1)³ between the samples of each two groups (S, T).

    The kernel of the Kernel Inception Distance (Bińkowski et al. 2018, "Demystifying MMD GANs", section 3.1).
    """
    values = (np.einsum("snd,tmd->sntm", a_SND, b_TMD, optimize=True) / a_SND.shape[-1] + 1) ** 3
    return values.mean((1, 3))


def kernel_distance(within_SS: np.ndarray, others_TT: np.ndarray, between_ST: np.ndarray) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy of two populations from `kernel_means` of their groups.

    Bińkowski et al. 2018, equation 3, with groups in place of samples: no group is compared with itself, so frames of
    one dream may resemble each other. For equal populations it is 0 on average, however few the groups are, and so it
    may be negative. NaN where a side has fewer than two.
    """
    if min(between_ST.shape) < 2:
        return math.nan
    return _off_diagonal(within_SS) + _off_diagonal(others_TT) - 2 * float(between_ST.mean())


def _off_diagonal(matrix: np.ndarray) -> float:
    count = len(matrix)
    return float(matrix.sum() - np.trace(matrix)) / (count * (count - 1))


def jackknife(point: float, *left_out: Sequence[float]) -> tuple[float, float]:
    """95 % interval around a figure, from its values without each group in turn, one sequence for each side.

    The sides' leave-one-out standard errors are added in squares; Student's t has one degree of freedom less than the
    smaller side has groups (Efron & Stein 1981). A bootstrap would compare a group drawn twice with itself.
    """
    sides = [np.asarray(side, np.float64) for side in left_out]
    variance = sum((len(side) - 1) / len(side) * np.square(side - side.mean()).sum() for side in sides)
    reach = student(min(map(len, sides)) - 1) * math.sqrt(variance)
    return point - reach, point + reach


def student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t."""
    table = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
    return table[freedom - 1] if freedom <= len(table) else 1.95996 + 2.3722 / freedom + 2.8225 / freedom**2
