"""The memory of a pipeline's model: the one that is asked for, or with `memory: auto` the one that fits the camera.

found = choose(plan.data, before={})        # {"memory": "scroll", "told": "memory: scroll (camera: scrolls: ...", ...}
plan = with_memory(plan, found["memory"])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from data_collect.errors import UserError
from game_wm.memory.scroll.motion import CELL
from train.camera.evidence import FIRST_PERSON, ROTATES, SCROLLS, evidence
from train.camera.pairs import stretches
from train.data.recordings import open_recordings
from train.pipeline.plan import Pipeline

STEPS, GEOMETRY = 3000, "configs/own/geometry.yaml"
OF_CAMERA = {SCROLLS: "scroll", ROTATES: "scroll", FIRST_PERSON: "first_person"}


def choose(folders: Sequence[str], before: dict[str, Any]) -> dict[str, Any]:
    """The `memory` that fits the camera of recordings, and the line that is `told`; `before`, where it was chosen for
    them already."""
    recordings = open_recordings(folders)
    key, height, width = [each.key for each in recordings], recordings[0].height, recordings[0].width
    if before.get("key") == key:
        return before
    try:
        found = evidence(*stretches(recordings))
        memory, why = OF_CAMERA.get(found.kind, "none"), f"camera: {found.kind}: {found}"
    except UserError:
        memory, why = "none", "too few frames to tell a camera from"
    if memory == "scroll" and (height % (4 * CELL) or width % (4 * CELL)):
        memory, why = "none", f"{why}; but {width}x{height} pixels are no multiples of {4 * CELL}"
    other = "--memory scroll or first_person gives it one" if memory == "none" else "--memory none leaves it out"
    return {"key": key, "memory": memory, "told": f"memory: {memory} ({why}); {other}"}


def with_memory(plan: Pipeline, memory: str) -> Pipeline:
    """The plan with the stages of this memory."""
    if memory == "scroll":
        return replace(plan, memory="scroll", scroll=STEPS)
    if memory == "first_person":
        return replace(plan, memory="first_person", geometry=replace(plan.geometry, config=GEOMETRY))
    return replace(plan, memory="none")
