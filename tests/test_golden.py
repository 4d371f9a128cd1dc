"""What plays and what trains is what it was: exact on the release of PyTorch that the values were written on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import golden
import numpy as np
import pytest

pytest.importorskip("torch")

pytestmark = pytest.mark.slow
KEPT: dict[str, Any] = json.loads(golden.GOLDEN.read_text())
ALIKE = 30.0  # dB of the first small pictures, and
NEAR = 0.02  # of the first losses, relatively, on another release or machine


@pytest.mark.parametrize("name", golden.PLAYED)
def test_shipped_checkpoints_play_the_frames_that_they_played(name: str) -> None:
    kept, found = KEPT["play"][name], golden.run("play", str(golden.shipped(name)), str(golden.PLAYED[name]))
    if golden.release() == KEPT["release"]:
        assert found == kept
    for one, other in zip(kept["pictures"], found["pictures"], strict=True):
        difference = np.subtract(
            *(np.frombuffer(bytes.fromhex(picture), np.uint8).astype(float) for picture in (one, other))
        )
        assert np.mean(difference**2) < 255**2 / 10 ** (ALIKE / 10)


def test_every_stage_has_the_losses_that_it_had(tmp_path: Path) -> None:
    found = golden.run("train", str(tmp_path))
    assert found.keys() == KEPT["train"].keys()
    if golden.release() == KEPT["release"]:
        assert found == KEPT["train"]
    for stage, losses in KEPT["train"].items():
        assert len(losses) == golden.LOSSES
        assert found[stage][0] == pytest.approx(losses[0], rel=NEAR)
