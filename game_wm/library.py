"""The checkpoints that lie in a folder, by their names alone: nothing is opened, and PyTorch is not needed."""

from __future__ import annotations

from pathlib import Path

SHIPPED = Path(__file__).resolve().parents[1] / "checkpoints"  # those that come with the program
ASIDE = ("-teacher", "-window")  # what another was distilled from, and what it is compared with


def playable(folder: Path) -> list[Path]:
    """The checkpoints of a folder that people play, by name."""
    return sorted(path for path in folder.glob("*.safetensors") if not path.stem.endswith(ASIDE))
