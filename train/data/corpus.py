"""Many games as one: frames drawn evenly by game, their actions in one schema, pictures changed at random.

    source = CorpusFrames(["recordings/base"], seed=0)      # all recordings below a folder
    frames = source.items(np.arange(64))                    # of one size, which is a function of (seed, 0)
    schema, first = union(open_corpus(folders))             # the block of each game's actions begins at first[game]

What a base is trained on. A game is its id with all options.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from data_collect.dataset import CARD
from data_collect.errors import UserError
from data_collect.schema import ActionSchema
from train.data.frames import CachedFrames
from train.data.recordings import Recording
from train.data.windows import random_below

CORPUS = "corpus"  # stands for the game where there are many
GAMES, SIZES = 5, 6  # streams of random numbers


def open_corpus(folders: Sequence[str], one_size: bool = False) -> list[Recording]:
    """Recordings, and those below a folder that is none itself, those of a game one after another. `UserError`: there
    is none, or of several sizes if `one_size`."""
    found = [sorted(card.parent for card in Path(folder).rglob(CARD)) or [Path(folder)] for folder in folders]
    recordings = sorted(map(Recording, chain(*found)), key=lambda recording: recording.dataset.game)
    if not recordings:
        raise UserError("no recording is named: add --data.data FOLDER")
    first = recordings[0]
    for other in recordings[1:] if one_size else ():
        if size_of(other) != size_of(first):
            here, there = ("{}x{} ({})".format(*size_of(each), each.dataset.folder) for each in (first, other))
            raise UserError(f"frames of {here} and {there} cannot be encoded together: name recordings of one size")
    return recordings


def size_of(recording: Recording) -> tuple[int, int]:
    """Width and height of its frames."""
    return recording.width, recording.height


def union(recordings: Iterable[Recording]) -> tuple[ActionSchema, dict[str, int]]:
    """A schema that holds the encoded actions of all games, a block a game, and where each game's block begins."""
    names, first = list[str](), dict[str, int]()
    fps = 20.0
    for recording in recordings:
        schema, fps = recording.dataset.schema, recording.dataset.schema.fps
        if recording.dataset.game not in first:
            first[recording.dataset.game] = len(names)
            names += [f"{recording.dataset.game} {name}" for name in schema.names]
    low, high = (-1.0,) * len(names), (1.0,) * len(names)
    return ActionSchema("box", tuple(names), low=low, high=high, fps=fps), first


def laid(actions_FA: np.ndarray, first: int, size: int) -> np.ndarray:
    """A game's encoded actions in its block of the union's, float16 (F, size): zero everywhere else."""
    rows = np.zeros((len(actions_FA), size), np.float16)
    rows[:, first : first + actions_FA.shape[1]] = actions_FA
    return rows


class CorpusFrames:
    """Frames of many games: item i is a function of (seed, i) and of the items that it is asked for with.

    Items that are asked for together have one size, drawn by the first of them as often as games have it; each is of a
    game that is drawn evenly, however long its recordings are. `row` and `still` as in `FrameSource`. `UserError`:
    more frames than `cache_gib` holds.
    """

    game = CORPUS

    def __init__(
        self, folders: Sequence[str], seed: int, held_out: float = 0.04, cache_gib: float = 16.0, row: int = 1,
        still: bool = False,
    ) -> None:  # fmt: skip
        recordings = open_corpus(folders)
        if (size := sum(recording.decoded_bytes for recording in recordings)) > cache_gib * 2**30:
            raise UserError(
                f"these recordings take {size / 2**30:.1f} GiB decoded: name fewer, or raise --data.cache_gib"
            )
        self.seed, self.schema = seed, union(recordings)[0]
        together: dict[tuple[int, int], dict[str, list[Recording]]] = {}
        for recording in recordings:
            together.setdefault(size_of(recording), {}).setdefault(recording.dataset.game, []).append(recording)
        self.sizes = {
            size: [CachedFrames(each, seed, held_out) for each in games.values()] for size, games in together.items()
        }
        for source in (source for sources in self.sizes.values() for source in sources):
            source.row, source.still = row, still
        self.width, self.height = max(self.sizes, key=lambda size: len(self.sizes[size]))

    def items(self, items: np.ndarray) -> np.ndarray:
        """uint8 (items, [still + row,] H, W, 3)."""
        counts = [len(sources) for sources in self.sizes.values()]
        drawn = random_below(sum(counts), self.seed, items[:1], SIZES)
        sources = list(self.sizes.values())[int(np.searchsorted(np.cumsum(counts), drawn[0], side="right"))]
        games = random_below(len(sources), self.seed, items, GAMES)
        parts = {game: sources[game].items(items[games == game]) for game in np.unique(games).tolist()}
        frames = np.empty((len(items), *next(iter(parts.values())).shape[1:]), np.uint8)
        for game, part in parts.items():
            frames[games == game] = part
        return frames

    def validation(self, count: int) -> np.ndarray:
        """uint8 (up to count, ...): held-out frames of the size that most games have, as many of each game."""
        sources = self.sizes[self.width, self.height]
        each = [source.validation(max(1, count // len(sources))) for source in sources]
        return np.concatenate(each)[:count] if count > 0 else each[0][:0]


def augmented(frames: np.ndarray, share: float, seed: int, items: np.ndarray) -> np.ndarray:
    """Frames (items, ..., H, W, 3) of which this share looks like those of other games: colours exchanged, turned
    round, brighter or darker; mirrored; a part of the picture enlarged. A function of (seed, item)."""
    frames = frames.copy()
    for k, item in enumerate(items.tolist()):
        rng = np.random.Generator(np.random.Philox(key=[seed, item]))
        if rng.random() < share:
            frames[k] = _changed(frames[k], rng)
    return frames


def _changed(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Frames (..., H, W, 3), all of them in the same way."""
    levels = np.arange(256.0)[:, None] * rng.uniform(0.6, 1.2, 3) + rng.uniform(-40, 40, 3)
    levels = 255 - levels if rng.random() < 0.25 else levels
    table = levels.clip(0, 255).astype(np.uint8)
    frames = table[frames[..., rng.permutation(3)], np.arange(3)]
    if rng.random() < 0.5:
        frames = frames[..., ::-1, :]
    if rng.random() < 0.5:  # pixels are repeated: sharp edges stay sharp
        sides, part = frames.shape[-3:-1], rng.uniform(0.4, 1)
        rows, columns = (int(rng.integers(side - int(side * part) + 1)) + (np.arange(side) * part).astype(int)
                         for side in sides)  # fmt: skip
        frames = frames[..., rows.clip(max=sides[0] - 1)[:, None], columns.clip(max=sides[1] - 1), :]
    return frames
