"""The memory of a world that scrolls, or turns below the screen (`aspect.py`), made from recordings without labels.

    python -m train scroll --latents DIR --tokenizer CKPT --out FILE

Finds the screen's own parts (`fixed.py`) and trains where an action leads (`motion.py`), from the recorded pictures: a
dream shows what it remembers as sharp as they are. The game's own poses tell where the screen is, where they explain
the pictures (`poses.py`). What it writes is a checkpoint that `python -m train views`, `--model.geometry` and export
take.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_collect.errors import UserError
from data_collect.files import whole
from game_wm.deadline import NEVER, Deadline, left_out
from game_wm.memory.protocol import Prompt
from game_wm.memory.registry import to_entries
from game_wm.memory.scroll.motion import CELL, ScrollConfig, TurningConfig
from game_wm.memory.scroll.path import FAR
from game_wm.memory.scroll.system import ScrollMemory
from game_wm.memory.scroll.turning import TurningMemory
from game_wm.model.tokenizer import Tokenizer
from train.checkpoints import load_tokenizer
from train.commands import tools
from train.data.encode import tokenizer_hash
from train.data.latents import LatentStore
from train.data.recordings import recorded_pictures, recordings_of
from train.data.spans import Span
from train.report.console import say
from train.report.machine import use_all_cores
from train.scroll.aspect import aspect_of
from train.scroll.fixed import corners, fixed_pixels
from train.scroll.motion import Recorded, goes_fractions, learn_motion, recorded_steps, share_right
from train.scroll.poses import fit_axes

BYTES = 2**30  # of pictures, at most, that are read of the episodes to train on: 87,381 of 64x64 pixels
FEW = 8192  # of them, in which the screen's own parts are found
READING = 0.4  # of the time that there is, for reading the pictures; some of them are read three times


@torch.no_grad()
def make_memory(
    store: LatentStore, tokenizer: Tokenizer, steps: int, held_out: float, deadline: Deadline = NEVER
) -> ScrollMemory:
    """The memory, trained for so many steps on all but the last episodes; less of both where the deadline comes before.
    `UserError` where it cannot."""
    config = tokenizer.config
    if store.index["tokenizer"] != tokenizer_hash(tokenizer):
        raise UserError(f"{store.directory} was encoded by another tokenizer: name that one with --tokenizer")
    if config.temporal or config.height % (4 * CELL) or config.width % (4 * CELL):
        raise UserError(f"{store.directory}: its pictures of {config.width}x{config.height} must be multiples of "
                        f"{4 * CELL} pixels, of a tokenizer that is not temporal: record with such a size")  # fmt: skip
    memory = untrained(store, config.height, config.width)
    spans = within(store.split(held_out, False), BYTES // (3 * config.height * config.width))
    if not spans:
        raise UserError(f"{store.directory}: its episodes are shorter than five frames: record longer ones")
    longest = max(spans, key=lambda span: span.frames)
    kept = deadline.part(READING).fits(len(spans), lambda: steps_of(memory, pictures_of(store, longest)))
    if kept < len(spans):
        say(left_out("scroll", kept, len(spans), "episodes"))
        spans = spans[:kept]
    pictures = [pictures_of(store, span) for span in spans]
    some = pictures[: max(1, FEW * len(pictures) // sum(map(len, pictures)))]
    for _ in range(2):  # what is fixed is found by the steps, and does not vote for them then
        found = [steps_of(memory, each) for each in some]
        memory.fixed.copy_(fixed_pixels(some, [corners(each) for each in found], aspect(memory)))
    if store.index["pose"] and not aspect(memory):
        memory = placed(memory, [store.tensors(span, "pose")[0] for span in spans[: len(some)]], found)
    found = [steps_of(memory, each, poses_of(store, span)) for each, span in zip(pictures, spans, strict=True)]
    recorded = of_episodes(store, spans, pictures, found)
    del pictures, some
    moved = float((recorded.steps != 0).any(1).float().mean())
    share = float(memory.fixed.float().mean())
    say(f"{len(recorded.steps)} steps, {moved:.0%} of which move the screen; {share:.0%} of the screen are its own")
    learn_motion(memory.motion, recorded, steps, deadline)
    if judged := within(store.split(held_out, True), FEW // 4):
        pictures = [pictures_of(store, span) for span in judged]
        found = [steps_of(memory, each, poses_of(store, span)) for each, span in zip(pictures, judged, strict=True)]
        recorded = of_episodes(store, judged, pictures, found)
    if not aspect(memory):
        memory.config = replace(memory.config, fractions=goes_fractions(memory.motion, recorded))
    if judged:
        degree = " and the degree" if aspect(memory) else ""
        say(f"{share_right(memory.motion, recorded):.1%} of held-out steps are predicted to the pixel{degree}")
    return memory.eval().requires_grad_(False)


def untrained(store: LatentStore, height: int, width: int) -> ScrollMemory:
    """The memory that fits: of a screen that goes over a plane, or turns in it, too."""
    turns = aspect_of(recordings_of(store))
    if not turns:
        return ScrollMemory(ScrollConfig(height, width, store.schema.size))
    say(f"the picture turns in its plane, where its pixels are {turns:.3g} times as wide as high")
    return TurningMemory(TurningConfig(height, width, store.schema.size, aspect=turns))


def aspect(memory: ScrollMemory) -> float:
    """Of a pixel; 0 where the picture does not turn."""
    return memory.config.aspect if isinstance(memory, TurningMemory) else 0.0


def placed(memory: ScrollMemory, poses: list[Tensor], steps: list[Tensor]) -> ScrollMemory:
    """The memory, with the axes of the game's poses where these tell where the screen is."""
    axes, share = fit_axes(poses, steps)
    if not axes:
        say(f"the game's poses are ignored: they explain {share:.0%} of the steps of the screen")
        return memory
    say(f"the game's poses tell where the screen is: they explain {share:.0%} of its steps")
    other = ScrollMemory(replace(memory.config, axes=axes))
    other.fixed.copy_(memory.fixed)
    return other


def within(spans: list[Span], frames: int) -> list[Span]:
    """The beginnings of these spans with so many frames together, of all of them alike, since worlds differ; each is
    long enough to have steps."""
    left, kept = frames, dict[int, Span]()
    order = sorted((i for i, span in enumerate(spans) if span.frames > 4), key=lambda i: spans[i].frames)
    for behind, i in enumerate(order):
        kept[i] = spans[i]._replace(frames=min(spans[i].frames, max(5, left // (len(order) - behind))))
        left -= kept[i].frames
    return [kept[i] for i in sorted(kept)]


def pictures_of(store: LatentStore, span: Span) -> Tensor:
    """Uint8 (T, H, W, 3)."""
    return torch.from_numpy(recorded_pictures(store, span.episode)[span.start :][: span.frames].copy())


def poses_of(store: LatentStore, span: Span) -> Tensor | None:
    """(T, 3); None where the recording holds none."""
    return store.tensors(span, "pose")[0] if store.index["pose"] else None


def steps_of(memory: ScrollMemory, pictures_THWC: Tensor, poses_T3: Tensor | None = None) -> Tensor:
    """The steps (T - 1, 2) between the pictures of an episode."""
    if memory.placed and poses_T3 is not None:
        return memory.path_of(poses_T3[None]).steps[0]
    latents = torch.zeros(1, len(pictures_THWC), 1, 1, 1)
    actions = torch.zeros(1, len(pictures_THWC) - 1, memory.config.actions)
    return torch.stack([step.motion[0] for _, step in memory.walk(Prompt(latents, actions), pictures_THWC[None])])


def of_episodes(store: LatentStore, spans: list[Span], pictures: list[Tensor], steps: list[Tensor]) -> Recorded:
    """All recorded steps but those to places that are not known to be connected."""
    parts = []
    for span, shown, taken in zip(spans, pictures, steps, strict=True):
        (actions,) = store.tensors(span, "actions")
        recorded = recorded_steps(shown, actions, taken)
        known = (recorded.steps < FAR).all(1)
        parts.append(tuple(x[known] for x in recorded))
    return Recorded(*(torch.cat(x) for x in zip(*parts, strict=True)))


def write(memory: ScrollMemory, store: LatentStore, out: Path, trained: dict[str, Any]) -> None:
    """A training checkpoint of this memory."""
    metadata = {"stage": "scroll", "game": store.game, "schema": store.schema.to_json(), "settings": {}}
    state = {f"memory.{name}": value for name, value in memory.state_dict().items()}
    config = {"memory": to_entries(memory.config)}
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole(out) as file:
        torch.save({"game_wm": metadata | {"trained": trained}, "config": config, "state_dict": state}, file)
    say(f"wrote {out}")


def make(
    latents: str | Path, tokenizer: str | Path, out: Path, held_out: float, number: int, deadline: Deadline = NEVER
) -> None:
    """Make the memory and write it. `UserError` where it cannot."""
    began, store = time.monotonic(), LatentStore(latents)
    use_all_cores()
    torch.manual_seed(0)
    memory = make_memory(store, load_tokenizer(tokenizer), number, held_out, deadline)
    hours = (time.monotonic() - began) / 3600
    write(memory, store, out, {"frames": 0, "hours": hours, "steps": number})


def main(arguments: list[str]) -> int:
    make(**vars(tools.scroll().parse_args(arguments)))
    return 0
