"""The views that the denoiser is shown of each frame, drawn once, beside the latents that training reads.

    python -m train views --latents runs/maze/latents --geometry runs/maze/geometry/last.ckpt \\
        --tokenizer runs/maze/tokenizer/last.ckpt

Every episode is walked through as play would walk through it: poses are dead-reckoned by the geometry, frames are
written to the same bounded store, sources chosen by the same `choose` and drawn by the same `draw`; and the last frames
are warped to where each action led. For half of the stretches of `STRETCH` frames the memory of the last 20 to 256
frames is hidden, since what was seen a moment ago is what is easiest; now and then it gives nothing, or something
wrong. Writes `views-00000.npy` (float16, F x 2 (C + COVER) x h x w: what memory draws, then what is warped) beside
`latents-00000.npy`; a run that is stopped continues at its last whole shard.

Legend: F frames of an episode, P of a part of it, R recalled frames, C latent channels, h, w latent grid.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data_collect.errors import UserError
from data_collect.shards import write_atomic
from game_wm.memory.camera import Sources, draw
from game_wm.memory.episodic import YOUNG, EpisodicMemory, Places
from game_wm.memory.geometry import Geometry
from game_wm.memory.pose import move
from game_wm.memory.recent import KEPT, RecentFrames, steady
from game_wm.memory.recollection import COVER, as_latents
from game_wm.tokenizer import Tokenizer
from train.encode import tokenizer_hash
from train.geometry import load_geometry
from train.machine import use_all_cores
from train.report import Task, say
from train.tokenizer import load_tokenizer
from train.windows import LatentStore, Span, shard_path

STRETCH = 64
HIDDEN, SHORTEST, LONGEST = 0.5, 20, 256
MISSING, WRONG = 0.05, 0.03  # of the stretches
BATCH = 128


def draw_views(latents: str | Path, geometry: Geometry, tokenizer: Tokenizer) -> bool:
    """Write the views of all frames; False when that had been done. Raises `UserError` where it cannot."""
    store = LatentStore(latents)
    if store.index["tokenizer"] != tokenizer_hash(tokenizer):
        raise UserError(f"{latents} was encoded by another tokenizer: name that one with --tokenizer")
    weights = torch.cat([value.flatten().double() for value in geometry.state_dict().values()])
    key = f"{store.index['key']}-{float((weights * torch.arange(1, len(weights) + 1)).sum()):.6e}"
    path = store.directory / "views.json"
    done = 0
    if path.exists():
        found = json.loads(path.read_text())
        done = found["shards"] if found["key"] == key else 0
    if done == len(store.shards):
        say(f"{latents}: views are up to date")
        return False
    write_atomic(path, json.dumps({"key": key, "shards": done}))
    ahead = [i for i, episode in enumerate(store.episodes) if episode["shard"] >= done]
    with ExitStack() as stack:
        task = stack.enter_context(Task("views", sum(store.lengths), "frames"))
        task.advance(sum(store.index["shards"][:done]))
        each = views_of(stack, store, ahead, geometry, tokenizer)
        for number in range(done, len(store.shards)):
            shape = (store.index["shards"][number], 2 * (store.latent_shape[0] + COVER), *store.latent_shape[1:])
            views = np.zeros(shape, np.float16)
            for episode in (episode for episode in store.episodes if episode["shard"] == number):
                views[episode["offset"] :][: episode["frames"]] = next(each)
                task.advance(episode["frames"])
            out = shard_path(store.directory, "views", number)
            temporary = out.with_suffix(f".{os.getpid()}.tmp")
            with open(temporary, "wb") as file:
                np.save(file, views)
            os.replace(temporary, out)
            write_atomic(path, json.dumps({"key": key, "shards": number + 1}))
    say(f"{latents}: views of {sum(store.lengths)} frames")
    return True


def views_of(
    stack: ExitStack, store: LatentStore, episodes: list[int], geometry: Geometry, tokenizer: Tokenizer
) -> Iterator[np.ndarray]:
    """`episode_views` of these episodes in turn, by one process a core: much of it is no matrix product."""
    cores = torch.get_num_threads()
    if cores == 1 or len(episodes) == 1:
        return (episode_views(store, number, geometry, tokenizer) for number in episodes)
    context = multiprocessing.get_context("spawn")
    pool = stack.enter_context(context.Pool(cores, _begin, (str(store.directory), geometry, tokenizer)))
    return pool.imap(_views, episodes)


_work: list[Any] = []  # of a worker process: the store and the two networks


def _begin(latents: str, geometry: Geometry, tokenizer: Tokenizer) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits
    torch.set_num_threads(1)
    _work[:] = [LatentStore(latents), geometry, tokenizer]


def _views(number: int) -> np.ndarray:
    return episode_views(_work[0], number, *_work[1:])


@torch.no_grad()
def episode_views(store: LatentStore, number: int, geometry: Geometry, tokenizer: Tokenizer) -> np.ndarray:
    """The views (F, 2 * (C + COVER), h, w) of one episode, float16; of its first frame there is none."""
    span = Span(number, 0, store.lengths[number])
    latents = torch.from_numpy(np.array(store.read("latents", span))).float()
    actions = torch.from_numpy(np.array(store.read("actions", span))).float()
    with torch.autocast("cpu", torch.bfloat16):
        frames = RecentFrames.read(geometry, tokenizer.decode, latents[None], actions[None])
    which, sources, there, coming = walk(frames, actions, geometry, store.episodes[number]["seed"])
    views = []
    for part in torch.arange(len(latents)).split(BATCH):
        rows = which[part] * there[part]
        recalled = Sources(frames.pictures[0, rows], frames.disparity[0, rows], sources[part], there[part])
        past = stretches(frames, part)
        warped = past.sources(geometry, coming[part])
        with torch.autocast("cpu", torch.bfloat16):
            views.append(as_latents(tokenizer, draw([recalled, warped], geometry.focal)).half())
    views[0][0] = 0
    return torch.cat(views).numpy()


def stretches(frames: RecentFrames, part: Tensor) -> RecentFrames:
    """What came before each of these frames (P,), as of P players."""
    rows = part[:, None] + torch.arange(-KEPT, 0)
    past = RecentFrames(*(x[0][rows.clamp_min(0)] for x in frames.tensors()))
    past.there &= rows >= 0
    return past


def walk(frames: RecentFrames, actions: Tensor, geometry: Geometry, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each frame of an episode: which frames are recalled (F, R), their poses seen from its own (F, R, 3), whether
    there is one (F, R), and the step that was foreseen to lead to it (F, 3)."""
    config = geometry.config
    pictures, disparity, was = frames.pictures[0], frames.disparity[0], frames.steps[0]
    coming, free = steady(geometry, geometry.motion.to_come(frames.pairs[0], actions, was)), None
    if geometry.motion.free is not None:
        free = steady(geometry, geometry.motion.unhindered(actions, was))
    # Positions are put right at this resolution, so that no more of a picture need be kept here.
    small = F.interpolate(pictures.float(), size=disparity.shape[-2:], mode="area").round().to(torch.uint8)
    places = Places(config.place, config.headings, config.growing)
    memory = EpisodicMemory.start(1, config.slots, small.shape[1:], disparity.shape[1:], "cpu", config.trail)
    random = torch.Generator().manual_seed(seed % 2**63)
    nothing = torch.zeros(1, config.views)
    found = [(nothing.long(), nothing[..., None].expand(-1, -1, 3), nothing > 0)]
    young, kind = YOUNG, 1.0
    for t in range(len(was)):
        if t % STRETCH == 0:
            hidden, length, kind = torch.rand(3, generator=random).tolist()
            young = round(SHORTEST * (LONGEST / SHORTEST) ** length) if hidden < HIDDEN else YOUNG
        if t:
            if free is not None:
                coming[t - 1 : t] = memory.coming(coming[t - 1 : t], free[t - 1 : t])
            pose = move(memory.pose, coming[t - 1 : t])
            which, sources, there = memory.choose(places, pose, torch.tensor([t]), config.views, geometry.focal, young)
            times = memory.times.flatten(1).gather(1, which)
            if kind < MISSING:
                there = there & False
            elif kind < MISSING + WRONG:  # what it recalls is of another place
                times = torch.full_like(times, int(torch.randint(t, (), generator=random)))
            found.append((times, sources, there))
        memory.arrive(places, was[t : t + 1], small[t : t + 1], disparity[t : t + 1], torch.tensor([t]), geometry.focal)
    which, sources, there = (torch.cat(x) for x in zip(*found, strict=True))
    return which, sources, there, coming.roll(1, 0)


def main(arguments: list[str]) -> int:
    """`python -m train views`."""
    parser = argparse.ArgumentParser("python -m train views", description="The views of all frames, once.")
    parser.add_argument("--latents", required=True, help="folder that `python -m train encode` wrote")
    parser.add_argument("--geometry", required=True, help="checkpoint of `python -m train geometry`")
    parser.add_argument("--tokenizer", required=True, help="checkpoint with the tokenizer")
    options = parser.parse_args(arguments)
    use_all_cores()
    draw_views(options.latents, load_geometry(options.geometry), load_tokenizer(options.tokenizer))
    return 0
