"""What there is to play: a tile for each checkpoint and each saved dream, read from the files without PyTorch.

    for tile in checkpoints([SHIPPED]): print(tile.name, tile.line, tile.figures)

A tile's picture moves: it is the end of the prompt that dreams of the checkpoint begin with. Its line is `line` of the
card beside the file (NAME.json), its figures are the card's.

Legend: T frames, H, W pixels.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import safe_open

from game_wm.library import FORMAT, LEFT, SHIPPED, SUFFIX, playable

RUNS = Path("runs")
NEWEST = 24  # own checkpoints, and saved dreams, that are shown
MOST_FRAMES = 48  # of a tile that moves
REMEMBERED = {"first_person": "places", "scroll": "map", "turning": "map"}  # by the kind of memory


@dataclass
class Tile:
    """A file that can be played. `frames` uint8 (T, H, W, 3), none where the file cannot be read: then `problem` says
    why."""

    path: Path
    group: str
    name: str
    line: str
    figures: tuple[tuple[str, str], ...] = ()  # (value, what it is: "" where its unit says that)
    frames: np.ndarray = field(default_factory=lambda: np.zeros((0, 1, 1, 3), np.uint8))
    fps: float = 20.0
    problem: str = ""


def checkpoints(folders: Sequence[Path], current: Path | None = None) -> list[Tile]:
    """Those that people play: the program's own by name, then the newest of the user's runs, of other `folders`, and
    the `current` one, whatever it is for."""
    shipped = SHIPPED.resolve()
    others = [folder for folder in (*folders, *RUNS.glob("*/")) if folder.resolve() != shipped]
    own = {path.resolve(): path for folder in others for path in playable(folder)}
    theirs = playable(SHIPPED) if shipped in [folder.resolve() for folder in folders] else []
    if current is not None and current.is_file() and current.resolve() not in map(Path.resolve, theirs):
        own.setdefault(current.resolve(), current)
    newest = sorted(own.values(), key=lambda path: path.stat().st_mtime, reverse=True)[:NEWEST]
    found = [read(path, "Dreams") for path in theirs] + [read(path, "Your own") for path in newest]
    return [tile for tile in found if tile is not None]


def dreams(folder: Path) -> list[Tile]:
    """The dreams saved in a folder, the newest first; damaged ones are left out."""
    files = [(path.stat().st_mtime, path) for path in folder.glob(f"*{SUFFIX}") if path.is_file()]
    found = []
    for when, path in sorted(files, reverse=True)[:NEWEST]:
        with suppress(Exception), safe_open(path, "np") as file:
            name = json.loads(file.metadata()["about"])["checkpoint"]
            how = "left" if path.stem.endswith(LEFT) else "saved"
            line = f"A dream of {name}, {how} {datetime.fromtimestamp(when):%d %b %H:%M}"
            found.append(Tile(path, "Saved moments", name, line, frames=file.get_tensor("picture")[None]))
    return found


def read(path: Path, group: str) -> Tile | None:
    """None for a file that training begins with: it has no moment to begin a dream in."""
    tile = Tile(path, group, path.stem, path.name)
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError("it has another format")
            if not file.get_slice("contexts.frames").get_shape()[0]:
                return None
            tile.frames = _prompt(file)
        about = {name: json.loads(metadata[name]) for name in ("config", "schema", "trained", "measured")
                 if name in metadata}  # fmt: skip
        card = _card(path.with_suffix(".json"))
        tile.fps = float(about["schema"]["fps"])
        tile.line = str(card.get("line") or line_of(metadata["game"], about["trained"].get("hours")))
        tile.figures = tuple(_figures(card, about, path.stat().st_size))
    except Exception as error:  # whatever a damaged file does, the others still play
        why = (str(error).splitlines() or [type(error).__name__])[0]
        tile.problem = f"{path.name} is not a whole checkpoint ({why}): copy or export it again."
    return tile


def _prompt(file: Any) -> np.ndarray:
    """The last frames of the first seed context, uint8 (T, H, W, 3)."""
    frames = file.get_slice("contexts.frames")
    if "contexts.sizes" not in file.keys():  # noqa: SIM118
        return frames[0][-MOST_FRAMES:]
    sizes_SP = file.get_tensor("contexts.sizes")
    ends = sizes_SP[0].astype(int).cumsum()
    parts = np.split(frames[: int(ends[-1])], ends[:-1])[-MOST_FRAMES:]
    return np.stack([np.asarray(Image.open(io.BytesIO(part.tobytes())).convert("RGB")) for part in parts])


def _card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) else {}


def line_of(game: str, hours: float | None) -> str:
    """ "gym:ALE/Pong-v5?skip=4" -> "Pong, learnt in 30 minutes"."""
    name = re.sub(r"^.*[:/]|-v\d+$", "", game.partition("?")[0])
    took = f"{hours:.1f} hours" if hours and hours >= 2 else f"{60 * (hours or 0):.0f} minutes"
    return name[:1].upper() + name[1:] + (f", learnt in {took}" if hours else "")


def _figures(card: dict[str, Any], about: dict[str, Any], size: int) -> list[tuple[str, str]]:
    """(value, what it is), those that are known."""
    config, measured = about["config"], about.get("measured") or {}
    first = _at(card, "fidelity", "psnr", "1") or _at(measured, "psnr", "next_frame")
    again = _at(card, "fidelity", "repeat_psnr", "1") or _at(measured, "psnr", "repeat")
    speed, memory = _at(card, "cost", "fps_median"), config.get("memory")
    seconds = config["dynamics"]["window"] / about["schema"]["fps"]
    kind = REMEMBERED.get(memory.get("kind", "first_person"), "memory") if memory else f"{seconds:.1f} s"
    return [
        *([(f"{first:.1f} dB", "next frame")] if first else []),
        *([(f"{again:.1f} dB", "repeating")] if first and again else []),
        *([(f"{speed:.0f}", "frames/s")] if speed else []),
        (kind, "memory"),
        (f"{size / 2**20:.0f} MiB", ""),
    ]


def _at(figures: Any, *keys: str) -> float | None:
    """A figure of a card, None where it has none."""
    for key in keys:
        figures = figures.get(key) if isinstance(figures, dict) else None
    return float(figures) if isinstance(figures, int | float) else None
