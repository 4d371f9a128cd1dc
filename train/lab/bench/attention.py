"""What a frame costs the context stream, by the frames that it looks back on, for every kind of attention.

    python -m train bench attention [--json] [--plot docs/attention.png]

A state is filled with so many frames, then steps of one player are timed. The kinds take turns; the median counts.
Weights are random: they do not change the time.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from PIL import Image, ImageDraw

from data_collect.files import save_picture
from game_wm.evaluation.report.sheet import INK, PAPER
from game_wm.model.config import DynamicsConfig
from game_wm.model.dynamics import Dynamics
from train.commands import tools
from train.report.console import say
from train.report.machine import use_all_cores

CONTEXTS = (1, 16, 64, 256, 1024, 4096, 16384)
# `window` is as long as the context where it is None.
KINDS: dict[str, dict[str, Any]] = {
    "full": {"window": None},
    "full, one head of keys": {"window": None, "kv_heads": 1},
    "window of 32, sink of 2": {"window": 32, "sink": 2},
    "best 4 blocks of 16": {"window": None, "attention": "sparse", "block": 16, "top": 4},
    "linear": {"window": 32, "attention": "linear"},
}
COLOURS = ((28, 96, 190), (120, 170, 230), (206, 92, 40), (40, 140, 80), (140, 60, 160))
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 560, 330, 56, 24, 48


@torch.no_grad()
def context_cost(
    contexts: Sequence[int] = CONTEXTS, steps: int = 21, config: DynamicsConfig = DynamicsConfig(channels=16)
) -> dict[str, dict[str, float]]:
    """Kind -> context in frames -> milliseconds a frame, the medians of so many steps."""
    table: dict[str, dict[str, float]] = {kind: {} for kind in KINDS}
    for context in contexts:
        ready = {kind: _prepare(kind, context, config) for kind in KINDS}
        took: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for step in range(steps + 3):
            for kind, (stream, memory, latents, action) in ready.items():
                count = memory.working.count.clone()
                began = time.perf_counter()
                stream.step(latents, action, memory)
                if step >= 3:  # the first ones warm up
                    took[kind].append(time.perf_counter() - began)
                memory.working.count.copy_(count)
        for kind, seconds in took.items():
            table[kind][str(context)] = 1e3 * median(seconds)
    return table


def _prepare(kind: str, context: int, config: DynamicsConfig) -> tuple[Any, Any, torch.Tensor, torch.Tensor]:
    options = dict(KINDS[kind])
    if options["window"] is None:
        # Blocks want three of them at least.
        options["window"] = max(context, 48) if options.get("attention") == "sparse" else max(context, 1)
    torch.manual_seed(0)
    dynamics = Dynamics(replace(config, **options, bottleneck_window=1)).eval()
    latents = torch.randn(1, config.channels, config.height, config.width)
    action = torch.zeros(1, config.actions)
    memory = dynamics.start(latents[:, None], action[:, None][:, :0]).context
    for part in (memory.working.keys, memory.working.values, memory.working.sums):
        part.normal_()
    memory.working.count.fill_(context)
    return dynamics.context, memory, latents, action


def plot(table: Mapping[str, Mapping[str, float]]) -> Image.Image:
    """Milliseconds a frame against frames of context, both on logarithmic scales."""
    picture = Image.new("RGB", (WIDTH, HEIGHT + 18 * len(table)), PAPER)
    pen = ImageDraw.Draw(picture)
    contexts = [int(name) for name in next(iter(table.values()))]
    values = [value for row in table.values() for value in row.values()]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    last = math.log2(max(contexts)) or 1.0

    def place(context: float, value: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - 16) * math.log2(context) / last
        return across, HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (math.log10(value) - low) / (high - low)

    for power in range(low, high + 1):
        (left, y), (right, _) = place(1, 10**power), place(2**last, 10**power)
        pen.line((left, y, right, y), (222, 222, 222))
        pen.text((6, y - 6), f"{10**power:g} ms", INK)
    for context in contexts:
        pen.text((place(context, 10**low)[0] - 10, HEIGHT - BOTTOM + 6), f"{context:,}", INK)
    pen.text((LEFT, HEIGHT - BOTTOM + 22), "frames of context", INK)
    for row, ((kind, line), colour) in enumerate(zip(table.items(), COLOURS, strict=True)):
        points = [place(int(context), value) for context, value in line.items()]
        pen.line(points, colour, 2)
        y = HEIGHT + 18 * row - 4
        pen.line((LEFT, y + 6, LEFT + 24, y + 6), colour, 3)
        pen.text((LEFT + 32, y), kind, INK)
    return picture


def main(arguments: list[str]) -> int:
    options = tools.bench_attention().parse_args(arguments)
    use_all_cores()
    table = context_cost(CONTEXTS)
    if options.plot:
        save_picture(options.plot, plot(table))
    if options.json:
        print(json.dumps(table, indent=1))
        return 0
    contexts = list(next(iter(table.values())))
    say(f"{'ms a frame, context of':26}" + "".join(f"{int(c):>9,}" for c in contexts))
    for kind, row in table.items():
        say(f"{kind:26}" + "".join(f"{row[c]:9.2f}" for c in contexts))
    return 0
