"""Samplers of the probability-flow equation of diffusion, dx/dσ = (x - D(x, σ)) / σ: from noise to data along falling
noise levels σ, in a given number of calls of the denoiser D.

    x = heun(denoise, noise * sigmas[0], sigmas)      # sigmas falling; the last one is 0, or where to stop

`euler` calls once an interval. So does `dpmpp_2m`, which is of second order since it keeps its last prediction. `heun`
calls twice where it corrects; `intervals` says how many intervals a number of calls allows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

Denoise = Callable[[Tensor, float], Tensor]
"""(noisy (...), its noise level σ) -> expected clean value (...)."""


def karras_sigmas(count: int, low: float, high: float, rho: float) -> list[float]:
    """`count` levels falling from `high` to `low` and 0 behind them (Karras et al., 2022, equation 5)."""
    a, b = high ** (1 / rho), low ** (1 / rho)
    return [(a + i / max(1, count - 1) * (b - a)) ** rho for i in range(count)] + [0.0]


def euler(denoise: Denoise, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Euler steps, of first order: one call an interval."""
    for now, then in pairwise(sigmas):
        clean = denoise(x, now)
        x = clean + (x - clean) * (then / now)
    return x


def heun(denoise: Denoise, x: Tensor, sigmas: Sequence[float], corrected: int | None = None) -> Tensor:
    """Straight steps whose slope is the mean of those at both ends (Karras et al., 2022, algorithm 1), of second order.

    A step to 0 has no slope at its end. `corrected`: how many of the other steps, the last ones, are corrected; all if
    None.
    """
    first = 0 if corrected is None else len(sigmas) - 1 - (sigmas[-1] == 0) - corrected
    for i, (now, then) in enumerate(pairwise(sigmas)):
        slope = (x - denoise(x, now)) / now
        straight = x + (then - now) * slope
        if then > 0 and i >= first:
            slope = (slope + (straight - denoise(straight, then)) / then) / 2
        x = x + (then - now) * slope
    return x


def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """DPM-Solver++ (2M) (Lu et al., 2022, algorithm 2): exponential steps in -log σ, of second order, one call each."""
    before: tuple[Tensor, float] | None = None
    for now, then in pairwise(sigmas):
        clean = guess = denoise(x, now)
        step = math.log(now / then) if then > 0 else math.inf
        if before is not None and then > 0:
            last, length = before
            guess = clean + (clean - last) * (step / (2 * length))
        x = guess + (x - guess) * (then / now)
        before = clean, step
    return x


def intervals(sampler: str, calls: int) -> int:
    """How many intervals, the last of them to 0, so many `calls` of the denoiser allow."""
    return calls // 2 + 1 if sampler == "heun" else calls


def solve(sampler: str, denoise: Denoise, x: Tensor, sigmas: Sequence[float], calls: int) -> Tensor:
    """One of the samplers by its name, with exactly so many calls; `sigmas` has `intervals` + 1 levels."""
    if sampler == "heun":
        return heun(denoise, x, sigmas, corrected=calls - len(sigmas) + 1)
    return {"euler": euler, "dpmpp_2m": dpmpp_2m}[sampler](denoise, x, sigmas)
