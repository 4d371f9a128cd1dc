"""What is played, as shards: data to train on, which `python -m data_collect verify` accepts.

    data = ShardRecording("recordings/maze-data", "maze", schema, seed=0)
    data.begin(picture, info); data.step(raw, reward, ended, picture, info); data.close()

A real game's episodes begin with the seeds of a recording, so that `verify` can play them again; a dream's game is
called `dream:NAME`, which nothing can play again.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from data_collect.dataset import CARD
from data_collect.errors import UserError
from data_collect.files import cannot_write
from data_collect.recording.record import EPISODE_FRAMES, publish
from data_collect.recording.recorder import EpisodeWriter, seeds
from data_collect.schema import ActionSchema
from data_collect.shards.chunk import Chunk
from data_collect.shards.writer import ShardWriter, write_atomic
from game_wm.dream import Moment


class ShardRecording:
    """A new folder of shards. `UserError` when it cannot be made, or when the disk is full."""

    def __init__(self, folder: str | Path, game: str, schema: ActionSchema, seed: int) -> None:
        self.folder, self.game, self.episode, self.steps = Path(folder), game, -1, 0
        self._made = [self.folder, *(folder for folder in self.folder.parents if not folder.exists())]
        self.broken = False  # a full disk, or what no shard can hold: what was written stays, and nothing more is
        self._settings: dict[str, Any] = {
            "game": game, "player": "human", "recording_seed": seed, "episode_frames": EPISODE_FRAMES,
            "schema": schema.to_json(),
        }  # fmt: skip
        try:
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise UserError(
                f"{folder} cannot be made ({error.strerror}): change what stands in the way, or record elsewhere"
            ) from None
        self._writer = ShardWriter(self.folder)
        self._playing: EpisodeWriter | None = None
        self._last: Moment | None = None  # of the dream that is recorded
        try:
            write_atomic(self.folder / CARD, json.dumps(self._settings, indent=1))
        except (UserError, OSError) as error:
            self._remove()
            raise self._told(error) from error

    @property
    def playing(self) -> bool:
        return self._playing is not None

    def begin(self, picture: np.ndarray, info: dict[str, Any]) -> None:
        """Another episode, from this picture, uint8 (H, W, 3); `info` may hold its pose."""
        self.end()
        self.episode += 1
        env_seed, player_seed = seeds(self._settings["recording_seed"], self.episode)
        meta = self._settings | {"episode": self.episode, "seed": env_seed, "player_seed": player_seed}
        self._playing = EpisodeWriter(meta, self._add, picture, info)

    def step(self, raw: np.ndarray, reward: float, ended: bool, picture: np.ndarray, info: dict[str, Any]) -> None:
        """One step of the episode; what follows its end is not recorded until another one begins."""
        if self._playing is None:
            return
        try:
            self._playing.step(raw, reward, ended, False, picture, info)
        except UserError:
            self.broken, self._playing = True, None
            raise
        self.steps += 1
        if ended:
            self._playing = None

    def dreamt(self, before: Moment, moment: Moment) -> None:
        """One step of a dream; another episode begins where it does not go on from the last step."""
        if before is not self._last or not self.playing:
            self.begin(before.picture, {})
        self.step(moment.action, moment.reward, moment.ended, moment.picture, {})
        self._last = moment

    def end(self) -> None:
        """The episode goes on, but not in this recording."""
        playing, self._playing = self._playing, None
        if playing is not None:
            if playing.frames == 1:
                self.episode -= 1  # nothing was played in it
            playing.end()

    def _add(self, chunk: Chunk) -> None:
        try:
            self._writer.add(chunk)
        except (UserError, OSError) as error:
            self.broken, self._playing = True, None  # the last chunk comes without a step
            raise self._told(error) from error

    def _remove(self) -> None:
        """The card alone is no recording; nor are the folders that were made for it."""
        (self.folder / CARD).unlink(missing_ok=True)
        for folder in self._made:
            with suppress(OSError):  # it holds other files
                folder.rmdir()

    def _told(self, error: UserError | OSError) -> UserError:
        """The recorder's sentence for a full disk speaks of a command that is run again; here is none."""
        refused = error if isinstance(error, OSError) else error.__cause__ or error.__context__
        return cannot_write(self.folder, refused) if isinstance(refused, OSError) else UserError(str(error))

    def close(self) -> Path | None:
        """Finish shards, index and card; the folder, or None where no shard was written (then it is gone)."""
        try:
            self.end()
            self._writer.close()
        finally:
            empty = not any(self.folder.glob("shard-*"))
            if empty:
                self._remove()
        if empty:
            return None
        try:
            publish(self.folder)
        except (UserError, OSError) as error:
            raise self._told(error) from error
        return self.folder
