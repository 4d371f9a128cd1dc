"""Action files: what was played, and what a headless run is to play.

    log = ActionLog(schema)
    log.begin(context=3, seed=0); log.add(schema.raw(action)); log.save("walk.npz", checkpoint="maze", steps=1)
    log = read_actions("walk.npz", schema)      # also .npy and .json: raw actions (T, D), or (T,) where D is 1

A log holds every episode that was begun, so that playing it again begins the same contexts with the same noise.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError

import numpy as np

from data_collect.errors import UserError
from data_collect.files import whole
from data_collect.schema import ActionSchema

LOG_VERSION = 1
# What NumPy, zipfile and json raise for a damaged file: a header that promises terabytes, a list in a list in a list …
DAMAGE = (
    OSError, ValueError, KeyError, EOFError, MemoryError, OverflowError, RuntimeError, TokenError, zlib.error,
    zipfile.BadZipFile,
)  # fmt: skip


class ActionLog:
    """Raw actions in order, and where, in which context and with which noise seed each episode began."""

    def __init__(self, schema: ActionSchema) -> None:
        self.schema = schema
        self._actions = bytearray()  # a few bytes a step, whatever is played for however long
        self._episodes: list[tuple[int, int, int]] = []
        self.dropped = 0  # actions that were taken back: who compares it knows whether one log goes on from another

    def __len__(self) -> int:
        return len(self._actions) // (self.schema.width * self.schema.dtype.itemsize)

    @property
    def actions(self) -> np.ndarray:
        """Raw actions (T, D)."""
        return np.frombuffer(bytes(self._actions), self.schema.dtype).reshape(-1, self.schema.width)

    @property
    def episodes(self) -> dict[int, tuple[int, int]]:
        """First step of each episode -> (context, seed). Empty in a file of actions alone."""
        return {step: (context, seed) for step, context, seed in self._episodes}

    def begin(self, context: int, seed: int) -> None:
        """The next action is the first of an episode."""
        if self._episodes and self._episodes[-1][0] == len(self):
            self._episodes.pop()  # nothing was played in it
        self._episodes.append((len(self), context, seed))

    def add(self, raw: np.ndarray) -> None:
        """Append one raw action (D,), or several (T, D)."""
        self._actions += np.ascontiguousarray(raw, self.schema.dtype).tobytes()

    def drop(self) -> None:
        """Take the last action back."""
        del self._actions[-self.schema.width * self.schema.dtype.itemsize :]
        self.dropped += 1

    def last(self, steps: int) -> np.ndarray:
        """The last raw actions (steps, D)."""
        return self.actions[len(self) - steps :]

    def save(self, path: str | Path, checkpoint: str, steps: int) -> None:
        """Write an .npz; `checkpoint` and `steps` say what it was played on. `UserError` where it cannot be written."""
        starts = np.array(self._episodes, np.int64).reshape(-1, 3)
        with whole(path) as file:
            np.savez_compressed(
                file, version=LOG_VERSION, schema=json.dumps(self.schema.to_json()), actions=self.actions,
                start=starts[:, 0], context=starts[:, 1], seed=starts[:, 2], checkpoint=checkpoint, steps=steps,
            )  # fmt: skip


def read_actions(path: str | Path, schema: ActionSchema) -> ActionLog:
    """Actions from .npz (ours, or any with `actions`), .npy or .json; `UserError` when they do not fit `schema`."""
    path = Path(path)
    wanted = (
        f"{schema.width} whole numbers each" if schema.kind != "box" else f"{schema.width} numbers each"
    ) + f" ({', '.join(schema.names)})"
    log = ActionLog(schema)
    try:
        fields = _fields(path)
        values = fields["actions"]
        played = ActionSchema.from_json(json.loads(str(fields["schema"]))) if "schema" in fields else None
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: give an .npz, .npy or .json file of raw actions") from None
    except (*DAMAGE, UserError) as error:
        reason = f"no {error} in it" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise UserError(f"{path} is not an action file ({reason}): it should hold raw actions, {wanted}") from None
    if played is not None and (played.kind, played.names) != (schema.kind, schema.names):
        raise UserError(
            f"{path} was played with other actions ({played.kind}: {', '.join(played.names)})"
            f" than this checkpoint's ({schema.kind}: {', '.join(schema.names)})"
        )
    if values.ndim == 1 and schema.width == 1:
        values = values[:, None]
    if values.ndim != 2 or not len(values):
        raise UserError(
            f"{path} holds an array of shape {values.shape}: it should be (steps, {schema.width}), {wanted}"
        )
    try:
        log.add(schema.raw(values))
    except UserError as error:
        raise UserError(f"{path} does not fit this checkpoint: {error}; it should hold {wanted}") from None
    try:
        log._episodes = _episodes(fields, len(log))
    except (KeyError, ValueError) as error:
        reason = f"no {error} in it" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path} does not say where its episodes begin ({reason}): leave out `start`") from None
    return log


def _episodes(fields: dict[str, np.ndarray], steps: int) -> list[tuple[int, int, int]]:
    """(first step, context, seed) of each episode; KeyError or ValueError where it cannot be so in as many steps."""
    if "start" not in fields:
        return []
    columns = [fields[name] for name in ("start", "context", "seed")]
    if any(x.ndim != 1 or len(x) != columns[0].size or not np.can_cast(x.dtype, np.int64) for x in columns):
        raise ValueError("`start`, `context` and `seed` are whole numbers, one of each an episode")
    starts, contexts, seeds = (x.astype(np.int64).tolist() for x in columns)
    if any(not before < step <= steps for before, step in zip([-1, *starts], starts)):
        raise ValueError(f"`start` counts up within its {steps} steps")
    if min(seeds, default=0) < 0:
        raise ValueError("no `seed` is below 0")
    return list(zip(starts, contexts, seeds))


def _fields(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file; nothing in it is executed (no pickles)."""
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        if isinstance(content, dict):
            content = content["actions"]
        return {"actions": np.asarray(content)}
    if path.suffix not in (".npy", ".npz"):
        raise ValueError("its name ends in neither .npz nor .npy nor .json")
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return {"actions": loaded}
    with loaded:
        return {name: loaded[name] for name in loaded.files}
