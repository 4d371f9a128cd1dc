"""Which frames of which episodes: what is trained on and what is held out, and orders that spread evenly.

split_episodes([300] * 10, held_out=0.1, validation=True)       # [Span(episode=9, start=0, frames=300)]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

FEW_EPISODES = 8  # of fewer, a whole one is too much to hold out


class Span(NamedTuple):
    """`frames` frames of episode number `episode` (its place in the list), from frame `start` on."""

    episode: int
    start: int
    frames: int


def split_episodes(lengths: list[int], held_out: float, validation: bool) -> list[Span]:
    """The spans of the training part or of the held-out part of one recording's episodes with `lengths` frames.

    The last `held_out` (a fraction, at least one) of the episodes are kept from training; of fewer than eight
    episodes, that fraction of all frames from the end of the last one.
    """
    if len(lengths) >= FEW_EPISODES:
        kept = len(lengths) - max(1, round(len(lengths) * held_out)) if held_out > 0 else len(lengths)
        numbers = range(kept, len(lengths)) if validation else range(kept)
        return [Span(i, 0, lengths[i]) for i in numbers]
    last = len(lengths) - 1
    tail = min(int(sum(lengths) * held_out), lengths[last] // 2) if lengths else 0
    if validation:
        return [Span(last, lengths[last] - tail, tail)] if tail else []
    return [Span(i, 0, n - tail if i == last else n) for i, n in enumerate(lengths)]


def split_recordings(recordings: list[list[int]], held_out: float, validation: bool) -> list[Span]:
    """The same for several recordings, their episodes numbered on. A part of each is held out, never all of a short
    one."""
    spans, first = list[Span](), 0
    for lengths in recordings:
        spans += [span._replace(episode=first + span.episode) for span in split_episodes(lengths, held_out, validation)]
        first += len(lengths)
    return spans


def fitting_length(frames: list[int], wanted: int) -> int:
    """Frames of a window, at most `wanted`, for spans with so many `frames`: the length which, times the frames of all
    spans that are at least as long, is greatest. `wanted` where no span has two."""
    lengths = {wanted, *(n for n in frames if 2 <= n < wanted)}
    return max(lengths, key=lambda length: (length * sum(n for n in frames if n >= length), length))


def spread_out(groups: Sequence[int], at_least: int = 2) -> list[tuple[int, int]]:
    """All (group, number below `groups[group]`) in an order of which each beginning is spread evenly: the last of a
    group, then others ever closer together; `at_least` so many of each group before the rest."""
    order = list[tuple[bool, float, int, int]]()
    for group, count in enumerate(groups):
        bits = max(1, (count - 1).bit_length())
        halves = sorted(range(count), key=lambda i: int(f"{count - 1 - i:0{bits}b}"[::-1], 2))
        order += [(rank >= at_least, rank / count, group, number) for rank, number in enumerate(halves)]
    return [(group, number) for _, _, group, number in sorted(order)]
