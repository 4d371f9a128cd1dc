"""Metrics of evaluation are exact, and their intervals right."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from toy import Toy

from game_wm.evaluation import metrics
from game_wm.evaluation.feature_distance import FeatureDistance
from game_wm.pictures import median_picture, moving


def frames(*values: int) -> Tensor:
    return torch.stack([torch.full((16, 16, 3), v, dtype=torch.uint8) for v in values])


def test_psnr_is_exact() -> None:
    values = metrics.psnr(frames(100, 100, 0), frames(100, 110, 255))
    assert values.tolist() == pytest.approx([metrics.PSNR_CAP, 20 * math.log10(25.5), 0.0])


def test_psnr_within_a_mask() -> None:
    a, b = frames(100, 100), frames(100, 100)
    b[:, :8] = 110
    mask = torch.zeros(2, 16, 16, dtype=torch.bool)
    mask[0, :4] = True
    values = metrics.psnr(a, b, mask)
    assert values[0].item() == pytest.approx(20 * math.log10(25.5))
    assert math.isnan(values[1].item())


def test_what_moves_differs_from_the_median_of_its_episode() -> None:
    episode = frames(*[100] * 9)
    episode[torch.arange(9), torch.arange(9), 3] = 140  # a pixel that walks down
    episode[:, 12:] += 24 * (torch.arange(9) == 4).to(torch.uint8)[:, None, None, None]  # a flicker that is too faint
    median = median_picture(episode.numpy())
    assert (median == 100).all()
    found = moving(episode, torch.from_numpy(median)[None])
    assert found.nonzero().tolist() == [[t, t, 3] for t in range(9)]


def test_pooled_psnr_is_not_flattered_by_equal_pictures() -> None:
    errors = metrics.squared_error(frames(100, 100, 100), frames(100, 110, 110))
    assert metrics.pooled_psnr(errors) == pytest.approx(20 * math.log10(255) - 10 * math.log10(200 / 3))
    missing = np.vstack([errors[1:2], [[math.nan, math.nan]], [[0, 0]]])
    assert metrics.pooled_psnr(missing) == pytest.approx(20 * math.log10(25.5))
    assert math.isnan(metrics.pooled_psnr(missing[1:]))


def test_blur_lowers_ssim_and_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    sharp = torch.randint(0, 256, (2, 32, 32, 3), generator=generator, dtype=torch.uint8)
    image = torch.nn.functional.avg_pool2d(metrics.unit(sharp), 3, 1, 1)
    blurred = (image * 255).to(torch.uint8).permute(0, 2, 3, 1)
    assert metrics.ssim(sharp, sharp).tolist() == pytest.approx([1, 1])
    assert (metrics.ssim(sharp, blurred) < 0.9).all()
    assert (metrics.gradient(blurred) < metrics.gradient(sharp)).all()
    assert metrics.gradient(frames(7)).item() == 0


def test_bootstrap_covers_the_mean_and_skips_missing_episodes() -> None:
    values = np.random.default_rng(0).normal(5, 1, 200)
    low, high = metrics.bootstrap(np.append(values, math.nan))
    assert low < values.mean() < high and 0.2 < high - low < 0.4
    assert metrics.bootstrap(np.full(4, 3.0)) == (3.0, 3.0)
    assert math.isnan(metrics.bootstrap(np.array([math.nan]))[0])
    assert metrics.ratio(np.array([[1.0, 2.0], [3.0, 4.0], [math.nan, 1.0]])) == pytest.approx(4 / 6)


def test_frechet_distance() -> None:
    generator = np.random.default_rng(0)
    a = generator.normal(size=(500, 6))
    assert metrics.frechet(a, a) == pytest.approx(0, abs=1e-9)
    assert metrics.frechet(a, a + 2.0) == pytest.approx(6 * 4, rel=1e-9)  # moved by 2 in six dimensions
    assert metrics.frechet(a, a * 3) == pytest.approx(  # σ and 3σ differ by 2σ, the means by twice a's
        4 * np.trace(np.cov(a.T)) + 4 * np.square(a.mean(0)).sum(), rel=1e-6
    )
    components = metrics.Components(generator.normal(size=(50, 8)) * np.arange(8), 3)
    assert components(np.zeros((5, 8))).shape == (5, 3)


def test_every_interval_contains_its_figure() -> None:
    generator = np.random.default_rng(0)
    for draw in range(60):
        count = int(generator.integers(1, 9))
        pairs = np.exp(generator.normal(0, 3, (count, 2)))  # skewed, as squared errors are
        pairs[generator.random(count) < 0.2] = math.nan
        flags = (generator.random((count, 1)) < 0.3).astype(float)
        for values, statistic in (
            (pairs, metrics.pooled_psnr),
            (pairs, metrics.ratio),
            (pairs[:, :1], metrics.mean),
            (flags, metrics.mean),
            (np.full((count, 1), 0.1), metrics.mean),  # whose mean is not 0.1 to the last bit
        ):
            low, high = metrics.bootstrap(values, statistic, 40, seed=draw)
            point = statistic(values)
            assert low <= point <= high or (math.isnan(low) and (~np.isnan(values[:, 0])).sum() < 2)


def groups_of(generator: np.random.Generator, count: int, moved: float, spread: float, size: int = 6) -> np.ndarray:
    """Groups (S, N, D) whose samples resemble each other, and are of N(moved, spread²) all the same."""
    shared = generator.normal(size=(count, 1, 8)) * math.sqrt(0.7)
    return moved + spread * (shared + generator.normal(size=(count, size, 8)) * math.sqrt(0.3))


@pytest.mark.parametrize(("moved", "spread"), [(0.0, 1.0), (0.5, 1.0), (0.0, 1.6)])
def test_kernel_distance_is_unbiased_and_its_interval_right(moved: float, spread: float) -> None:
    generator = np.random.default_rng(1)
    a, a_again = moved + spread * generator.normal(size=(2, 1, 3000, 8))
    b, b_again = generator.normal(size=(2, 1, 3000, 8))
    true = metrics.kernel_means(a, a_again) + metrics.kernel_means(b, b_again) - 2 * metrics.kernel_means(a, b)
    true = 0.0 if (moved, spread) == (0, 1) else true.item()
    found, covered, frechets = [], [], []
    for _ in range(300):
        dreams, plays = groups_of(generator, 8, moved, spread), groups_of(generator, 8, 0, 1)
        frechets.append(metrics.frechet(dreams.reshape(-1, 8), plays.reshape(-1, 8)))
        kernels = [metrics.kernel_means(*pair) for pair in ((dreams, dreams), (plays, plays), (dreams, plays))]

        def distance(s: np.ndarray, t: np.ndarray, kernels: list[np.ndarray] = kernels) -> float:
            return metrics.kernel_distance(kernels[0][np.ix_(s, s)], kernels[1][np.ix_(t, t)], kernels[2][np.ix_(s, t)])

        every = np.arange(8)
        found.append(distance(every, every))
        without = [np.delete(every, i) for i in every]
        low, high = metrics.jackknife(
            found[-1], [distance(s, every) for s in without], [distance(every, t) for t in without]
        )
        assert low <= found[-1] <= high
        covered.append(low <= true <= high)
    assert np.mean(found) == pytest.approx(true, abs=4 * np.std(found) / math.sqrt(300) + 0.03 * true)
    assert np.mean(covered) >= 0.92
    if not true:
        assert np.mean(frechets) > 3  # where the kernel distance is 0


def test_students_t() -> None:
    assert [round(metrics.student(n), 2) for n in (1, 3, 10, 15, 30, 120)] == [12.71, 3.18, 2.23, 2.13, 2.04, 1.98]


def test_feature_distance_ranks_damage(features: FeatureDistance) -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.from_numpy(np.stack([Toy().reset(seed=s)[0] for s in range(3)]))
    slightly = (truth.float() + 4 * torch.randn(truth.shape, generator=generator)).clamp(0, 255).to(torch.uint8)
    other = torch.from_numpy(np.stack([Toy().reset(seed=s + 10)[0] for s in range(3)]))
    same, near, far = features.distances(truth, truth, slightly, other)
    assert same.tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    assert (near < far).all() and (near > 0).all()
    assert features.distance(truth, other).tolist() == pytest.approx(far.tolist(), rel=1e-4)
    assert features.vectors(truth).shape == (3, 512)


def test_features_are_frozen_and_differentiable(features: FeatureDistance) -> None:
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    features.network.train()
    assert not features.network.net.training
    features.network.distance(image, torch.rand(1, 3, 64, 64)).sum().backward()
    assert image.grad is not None and image.grad.isfinite().all() and image.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in features.network.parameters())
