"""The checkpoints that lie in a folder, by their names alone: nothing is opened, and PyTorch is not needed."""

from __future__ import annotations

from pathlib import Path

FORMAT = "game_wm/1"  # of a checkpoint file, in its metadata
SHIPPED = Path(__file__).resolve().parents[1] / "checkpoints"  # those that come with the program
SUFFIX, LEFT = ".dream", "-left"  # of a saved dream; before it, where it was saved when its player left
REFERENCE = "reference"  # the folder within it of models that are only compared with
COMPARED = ("-teacher", "-window")  # what another was distilled from, and what has no long memory
BASE = "base"  # what training begins with


def playable(folder: Path) -> list[Path]:
    """The checkpoints of a folder that people play, by name."""
    found = (path for path in folder.glob("*.safetensors") if not path.stem.endswith(COMPARED))
    return sorted(path for path in found if path.stem != BASE)


def reference(checkpoint: Path, name: str) -> Path | None:
    """The file `name` of a model that this checkpoint is compared with, or of its card, if it is there: in the folder
    `reference`, or beside the checkpoint, where training puts a run's own."""
    found = (checkpoint.parent / REFERENCE / name, checkpoint.with_name(name))
    return next((path for path in found if path.is_file()), None)
