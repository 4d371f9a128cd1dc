"""What is odd about a recording, before minutes are spent on learning from it.

    figures = measure(Dataset("data/mine"))         # sizes, lengths, repeated pictures, what each action changes
    for finding in findings(figures, window=32):
        print(finding.sentence)                     # finding.kind and finding.figures are for programs

Lengths and counts are those of the whole recording; pictures are judged by about 4,000 frames spread evenly over it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from data_collect.dataset import Dataset, evenly
from data_collect.keys import check_keys, is_idle
from data_collect.schema import ActionSchema
from data_collect.shards.chunk import Chunk, ChunkRef
from data_collect.shards.index import ChunkIndex

LOOKED_AT = 4_000  # frames
SMALL_SIDE = 32  # pixels: a picture this small is rather a table of symbols
WINDOW = 32  # steps: what a stage of training sees at a time, unless its configuration says otherwise
GREY_LEVELS = 2.0  # standard deviation below which a picture is of one colour
LOST_SHARE = 0.05  # of the steps, in episodes that are too short
STILL_SHARE = 0.5  # of the steps: above it most of the recording is standing still
FEWEST = 20  # steps of an action and steps without it, below which nothing can be said of what it changes
SURE = 4.5  # standard errors between two means: one of 515 features differs by chance once in three hundred actions
FAR = 1.5  # times the greatest change without an action: a change this large is not by chance
BLOCKS = 16  # a picture is compared in 16 x 16 blocks
REACH = 8  # pixels by which a picture may have moved as a whole


@dataclass(frozen=True)
class Figures:
    """What `measure` finds. `same_as` maps an action that changes nothing to the one that shows the same."""

    width: int
    height: int
    lengths: np.ndarray  # int64 (episodes,): steps of each
    spread: float  # the largest standard deviation of one picture's values, of 0 to 255
    repeated: float  # share of the steps after which the picture is exactly as before
    changing: bool  # whether any two pictures that were looked at differ
    unused: tuple[str, ...]  # actions that nobody took
    effective: tuple[str, ...] = ()  # actions after which the next picture differs
    same_as: dict[str, str] = field(default_factory=dict)
    untold: tuple[str, ...] = ()  # actions of which too few steps were looked at
    keys: str | None = None  # what is wrong with the names of keys


@dataclass(frozen=True)
class Finding:
    """One thing that is odd. `kind`: empty, short, tiny, constant, plain, still, unused, without_effect, keys."""

    kind: str
    sentence: str
    figures: dict[str, Any]


def measure(dataset: Dataset, frames: int = LOOKED_AT) -> Figures:
    """Figures of a recording; about so many `frames` of it are decoded. `UserError` as in `Dataset.read`."""
    chunks = [dataset.read(ref) for ref in _sample(dataset.index, frames)]
    lengths, taken = (
        dataset.whole.per_episode("steps"),
        {name for name, count in dataset.index.taken().items() if count},
    )
    unused = tuple(name for name in _takeable(dataset.schema) if name not in taken)
    first = chunks[0].frames[0] if chunks else np.zeros((0, 0, 3), np.uint8)
    # Whether a frame is exactly the one before it.
    repeats = [(chunk.frames[1:] == chunk.frames[:-1]).all((1, 2, 3)) for chunk in chunks]
    repeated = np.concatenate(repeats or [np.zeros(0, bool)])
    effective, same_as, untold = _effects(dataset.schema, chunks)
    some = [chunk.frames[:: max(1, len(chunk.frames) // 8)] for chunk in chunks]
    return Figures(
        width=first.shape[1], height=first.shape[0], lengths=lengths, unused=unused, effective=effective,
        same_as=same_as, untold=untold, spread=max((float(frames.std((1, 2)).max()) for frames in some), default=0.0),
        repeated=float(repeated.mean()) if len(repeated) else 0.0,
        changing=any((chunk.frames != first).any() for chunk in chunks),
        keys=check_keys(dataset.schema.keys, dataset.schema.names),
    )  # fmt: skip


def findings(of: Figures, window: int = WINDOW) -> Iterator[Finding]:
    """What is odd about these figures, the gravest first, for training that sees `window` steps at a time."""
    if not of.lengths.sum():
        yield Finding("empty", "it holds no whole step yet", {})
        return
    if not of.changing:
        text = "every picture is the same: nothing can be learnt from it. Does the game draw into what it gives?"
        yield Finding("constant", text, {})
    elif of.repeated > STILL_SHARE:
        text = f"after {of.repeated:.0%} of the steps the picture is as before"
        yield Finding("still", text, {"repeated": of.repeated})
    if of.spread < GREY_LEVELS:
        yield Finding("plain", "each picture is of one colour", {"spread": of.spread})
    if min(of.width, of.height) < SMALL_SIDE:
        text = f"pictures of {of.width}x{of.height} are tiny: give the game a larger ?width=…&height=…"
        yield Finding("tiny", text, {"width": of.width, "height": of.height})
    short = of.lengths < window
    lost = of.lengths[short].sum() / of.lengths.sum()
    if lost > LOST_SHARE:
        text = (
            f"{short.sum():,} of {len(short):,} episodes are shorter than {window} steps, with {lost:.0%} of all steps "
            f"(median {np.median(of.lengths):,.0f}, longest {of.lengths.max():,})"
        )
        yield Finding("short", text, {"window": window, "episodes": int(short.sum()), "steps": float(lost)})
    if of.unused:
        yield Finding("unused", f"nobody took {_list(of.unused)}", {"actions": list(of.unused)})
    if of.same_as and of.changing:
        if of.effective or of.untold:
            text = f"the next picture does not show it when one takes {_list(of.same_as)}"
        else:
            text = "no action changes the next picture: does the game use what `step` is given?"
        yield Finding("without_effect", text, {"same_as": of.same_as, "effective": list(of.effective)})
    if of.keys:
        yield Finding("keys", of.keys, {})


def _takeable(schema: ActionSchema) -> Iterator[str]:
    """The names that `histogram` counts and that can be taken: not an axis' side on which it has no room."""
    if schema.kind != "box":
        yield from schema.names
        return
    for name, low, rest, high in zip(schema.names, schema.low, schema.noop(), schema.high):
        yield from [f"{name}{side}" for side, room in (("-", low < rest), ("+", high > rest)) if room]


def _list(names: Iterable[str], most: int = 6) -> str:
    """ "a, b and c", shortened to so many."""
    names = list(names)
    if len(names) > most:
        return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def _sample(index: ChunkIndex, frames: int) -> list[ChunkRef]:
    """Chunks with about so many frames together, taken evenly from all."""
    total = index.total("frames")
    count = min(len(index), -(-len(index) * frames // max(total, 1)))
    return evenly(index, count)


def _effects(schema: ActionSchema, chunks: list[Chunk]) -> tuple[tuple[str, ...], dict[str, str], tuple[str, ...]]:
    """`effective`, `same_as` and `untold` of `Figures`."""
    effective, same_as, untold = [], {}, []
    if chunks:
        changes = np.concatenate([_changes(chunk.frames) for chunk in chunks])
        raw = np.concatenate([chunk.actions[: len(chunk.frames) - 1] for chunk in chunks])
        for name, other, taken, without in _contrasts(schema, raw, changes):
            if min(taken.sum(), without.sum()) < FEWEST:
                untold.append(name)
            elif _differ(changes[taken], changes[without]):
                effective.append(name)
            else:
                same_as[name] = other
    return tuple(effective), same_as, tuple(untold)


def _changes(frames: np.ndarray) -> np.ndarray:
    """float64 (F-1, features): how each frame differs from the one before it.

    The sum of absolute changes, the shift of the whole picture (rows, columns), and the changes of 16 x 16 blocks,
    first as they are and then without their sign.
    """
    rows, columns = (np.unique(np.linspace(0, side, BLOCKS + 1).astype(int)[:-1]) for side in frames.shape[1:3])
    blocks = np.zeros((2, len(frames) - 1, len(rows) * len(columns)))
    for i, (before, after) in enumerate(pairwise(frames)):
        change = after.astype(np.int32) - before
        for part, sums in zip((change, np.abs(change)), blocks):
            sums[i] = np.add.reduceat(np.add.reduceat(part.sum(-1), rows, 0), columns, 1).ravel()
    profiles = (frames.sum((2, 3), dtype=np.int64), frames.sum((1, 3), dtype=np.int64))
    return np.column_stack([blocks[1].sum(1), *map(_shift, profiles), *blocks])


def _shift(profile: np.ndarray) -> np.ndarray:
    """int (F-1,): by how many pixels each profile (F, N) is that of the frame before, moved; at most `REACH`."""
    size = profile.shape[1]
    reach = min(REACH, size // 4)
    middle = profile[:-1, reach : size - reach]
    moves = sorted(range(-reach, reach + 1), key=abs)  # of equals the smallest
    apart = [np.abs(profile[1:, reach + move : size - reach + move] - middle).sum(1) for move in moves]
    return np.array(moves)[np.argmin(apart, 0)]


def _contrasts(
    schema: ActionSchema, raw: np.ndarray, changes: np.ndarray
) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """(action, what it is compared with, its steps, the steps of that), each a mask over the steps."""
    size = changes[:, 0]
    if schema.kind == "multibinary":
        for i, name in enumerate(schema.names):
            yield name, "without it", raw[:, i] == 1, raw[:, i] == 0
        return
    if schema.kind == "box":
        offset = (raw - schema.noop()) / (np.array(schema.high) - np.array(schema.low))
        for i, name in enumerate(schema.names):
            yield name, "without it", np.abs(offset[:, i]) > 0.05, np.abs(offset[:, i]) <= 0.05
        return
    for i, choices in enumerate(schema.groups()):
        if len(choices) == 1:
            continue
        masks = [raw[:, i] == j for j in range(len(choices))]
        idle = next((j for j, name in enumerate(choices) if is_idle(name)), None)
        if idle is None:  # the one after which the picture changes least
            idle = min(range(len(choices)), key=lambda j: size[masks[j]].mean() if masks[j].any() else np.inf)
        for j, name in enumerate(choices):
            if j != idle:
                yield name, choices[idle], masks[j], masks[idle]


def _differ(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether the changes (n, features) after an action and those without it are told apart."""
    if one[:, 0].max() > FAR * other[:, 0].max():
        return True
    apart = np.abs(one.mean(0) - other.mean(0))
    error = np.sqrt(one.var(0) / len(one) + other.var(0) / len(other))
    return bool((apart > SURE * error + 1e-9).any())
