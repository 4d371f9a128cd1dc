"""The views that the denoiser is shown of each frame, drawn once, beside the latents that training reads.

    python -m train views --latents runs/maze/latents --geometry runs/maze/geometry/last.ckpt \\
        --tokenizer runs/maze/tokenizer/last.ckpt

Every episode is walked through as play would walk through it: poses are dead-reckoned by the geometry, frames are
written to the same bounded store, sources chosen by the same `choose` and drawn by the same `draw`; and the last frames
are warped to where each action led. For half of the stretches of `STRETCH` frames the memory of the last 20 to 256
frames is hidden, since what was seen a moment ago is what is easiest; now and then it gives nothing, or something
wrong. Writes `views-00000.npy` (float16, F x 2 (C + COVER) x h x w: what memory draws, then what is warped) beside
`latents-00000.npy`. A run that is stopped continues at its last whole shard.

Views are drawn from where each step is foreseen to lead, as in play; with `--aligned` from where it did lead, as it was
recorded (or read off the pictures, where poses were not); memory's frames stand where they were recorded as well, for
in an aligned dream nobody drifts. A network that learns from those draws what is seen from where its views are drawn.
An atlas is not looked at: what an episode has shown is as good to learn from, and a dream must also do without.

Legend: E episodes, F frames of one, P of a part of it, R recalled frames, C latent channels, h, w latent grid.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data_collect.errors import UserError
from data_collect.files import whole
from data_collect.lock import folder_lock
from data_collect.shards.writer import write_atomic
from game_wm.device import usable
from game_wm.memory.first_person.camera import Sources, draw_pair
from game_wm.memory.first_person.episodic import YOUNG, EpisodicMemory, Places
from game_wm.memory.first_person.geometry import Geometry
from game_wm.memory.first_person.pose import move, relative
from game_wm.memory.first_person.recent import KEPT, RecentFrames, steady
from game_wm.memory.first_person.views import COVER, as_latents
from game_wm.model.tokenizer import Tokenizer
from train.checkpoints import load_geometry, load_tokenizer
from train.commands import tools
from train.data.encode import tokenizer_hash
from train.data.windows import LatentStore, Span, shard_path
from train.report.console import Task, say
from train.report.machine import use_all_cores
from train.spread import spread

STRETCH = 64
HIDDEN, SHORTEST, LONGEST = 0.5, 20, 256
MISSING, WRONG = 0.05, 0.03  # of the stretches
BATCH, BATCH_GPU = 16, 2048  # frames that are drawn at once: on a processor, what its cache holds
TOGETHER = 128  # episodes that a GPU walks through at once


def draw_views(latents: str | Path, geometry: Geometry, tokenizer: Tokenizer, aligned: bool = False) -> bool:
    """Write the views of all frames; False when that had been done. Raises `UserError` where it cannot."""
    store = LatentStore(latents)
    if store.index["tokenizer"] != tokenizer_hash(tokenizer):
        raise UserError(f"{latents} was encoded by another tokenizer: name that one with --tokenizer")
    read = {name: value for name, value in geometry.state_dict().items() if not name.startswith("atlas.")}
    weights = np.concatenate([value.cpu().flatten().numpy() for value in read.values()], dtype=np.float64)
    key = store.views_key(aligned) + f"{(weights * np.arange(1, len(weights) + 1)).sum():.6e}"
    path = store.directory / "views.json"
    try:
        found = json.loads(path.read_text())
        done = int(found["shards"]) if found["key"] == key else 0
    except (FileNotFoundError, ValueError, LookupError, TypeError):  # none, or damaged: they are drawn anew
        done = 0
    if done == len(store.shards):
        say(f"{latents}: views are up to date")
        return False
    ahead = [i for i, episode in enumerate(store.episodes) if episode["shard"] >= done]
    with ExitStack() as stack:
        stack.enter_context(folder_lock(store.directory))
        write_atomic(path, json.dumps({"key": key, "shards": done}))
        task = stack.enter_context(Task("views", sum(store.lengths), "frames"))
        task.advance(sum(store.index["shards"][:done]))
        each = views_of(stack, store, ahead, geometry, tokenizer, aligned)
        for number in range(done, len(store.shards)):
            shape = (store.index["shards"][number], 2 * (store.latent_shape[0] + COVER), *store.latent_shape[1:])
            views = np.zeros(shape, np.float16)
            for episode in (episode for episode in store.episodes if episode["shard"] == number):
                views[episode["offset"] :][: episode["frames"]] = next(each)
                task.advance(episode["frames"])
            out = shard_path(store.directory, "views", number)
            with whole(out) as file:
                np.save(file, views)
            write_atomic(path, json.dumps({"key": key, "shards": number + 1}))
    say(f"{latents}: views of {sum(store.lengths)} frames")
    return True


def views_of(
    stack: ExitStack, store: LatentStore, episodes: list[int], geometry: Geometry, tokenizer: Tokenizer, aligned: bool
) -> Iterator[np.ndarray]:
    """The views of these episodes in turn: many at once on a GPU, elsewhere by one process a core, since much of it is
    no matrix product."""
    if geometry.focal.device.type != "cpu":
        groups = [episodes[i : i + TOGETHER] for i in range(0, len(episodes), TOGETHER)]
        return (views for group in groups for views in draw_episodes(store, group, geometry, tokenizer, aligned))
    cores = torch.get_num_threads()
    if cores == 1 or len(episodes) == 1:
        return (draw_episodes(store, [number], geometry, tokenizer, aligned)[0] for number in episodes)
    about = str(store.directory), geometry, tokenizer, aligned
    return stack.enter_context(spread("train.first_person.draw_views:worker", about, episodes, cores))


def worker(latents: str, geometry: Geometry, tokenizer: Tokenizer, aligned: bool) -> Callable[[int], np.ndarray]:
    """What a process of `spread` does: the number of an episode -> its views."""
    store = LatentStore(latents)
    return lambda number: draw_episodes(store, [number], geometry, tokenizer, aligned)[0]


@torch.no_grad()
def draw_episodes(
    store: LatentStore, numbers: list[int], geometry: Geometry, tokenizer: Tokenizer, aligned: bool = False
) -> list[np.ndarray]:
    """The views (F, 2 * (C + COVER), h, w), float16, of each of these episodes; none of its first frame."""
    device, lengths = geometry.focal.device, [store.lengths[number] for number in numbers]
    wanted = ["latents", "actions", *(["pose"] if aligned and store.index["pose"] else [])]
    latents, actions, *poses = (
        torch.stack([lengthened(store.read(name, Span(n, 0, f)), max(lengths)) for n, f in zip(numbers, lengths)])
        .to(device)
        for name in wanted
    )  # fmt: skip
    with torch.autocast(device.type, torch.bfloat16):
        led = F.pad(relative(poses[0][:, :-1], poses[0][:, 1:]), (0, 0, 1, 0)) if poses else None
        frames = RecentFrames.read(geometry, tokenizer.decode, latents, actions, steps_BT3=led)
    seeds = [store.episodes[n]["seed"] for n in numbers]
    which, sources, there, coming = walk(
        frames, actions, geometry, seeds, frames.steps if aligned else None, bool(poses)
    )
    drawn = []
    at = torch.arange(latents.shape[1], device=device).repeat(len(numbers), 1)
    episode = torch.arange(len(numbers), device=device)[:, None].expand_as(at)
    kept = at < torch.tensor(lengths, device=device)[:, None]
    for e, t in zip(*(x[kept].split(BATCH if device.type == "cpu" else BATCH_GPU) for x in (episode, at)), strict=True):
        rows = which[e, t] * there[e, t]
        recalled = Sources(
            frames.pictures[e[:, None], rows], frames.disparity[e[:, None], rows], sources[e, t], there[e, t]
        )
        warped = stretches(frames, e, t).sources(geometry, coming[e, t])
        with torch.autocast(device.type, torch.bfloat16):
            views = as_latents(tokenizer, draw_pair(recalled, warped, geometry.focal)).half()
        views[t == 0] = 0
        drawn.append(views.cpu())
    return [part.numpy() for part in torch.cat(drawn).split(lengths)]


def lengthened(rows: np.ndarray, frames: int) -> Tensor:
    """An episode's rows in 32 bits, the last one repeated to so many."""
    found = torch.from_numpy(np.array(rows)).float()
    return torch.cat((found, found[-1:].expand(frames - len(found), *found.shape[1:])))


def stretches(frames: RecentFrames, episode: Tensor, at: Tensor) -> RecentFrames:
    """What came before each of these frames (P,), as of P players."""
    rows = at[:, None] + torch.arange(-KEPT, 0, device=at.device)
    past = RecentFrames(*(x[episode[:, None], rows.clamp_min(0)] for x in frames.tensors()))
    past.there &= rows >= 0
    return past


def walk(
    frames: RecentFrames,
    actions: Tensor,
    geometry: Geometry,
    seeds: list[int],
    led: Tensor | None = None,
    sure: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each frame of E episodes: which frames are recalled (E, F, R), their poses seen from its own (E, F, R, 3),
    whether there is one (E, F, R), and the step that was foreseen to lead to it (E, F, 3), or that `led`
    there. `sure`: the frames' steps were recorded."""
    config, device = geometry.config, actions.device
    pictures, disparity, was = frames.pictures, frames.disparity, frames.steps
    pasts = geometry.motion.pasts(was, frames.actions)[:, 1:]
    flat = [x.flatten(0, 1) for x in (frames.pairs, actions, pasts)]
    coming, free = steady(geometry, geometry.motion.to_come(*flat)).view_as(was), None
    if config.trail:
        free = steady(geometry, geometry.motion.unhindered(*flat[1:])).view_as(was)
    # Positions are put right at this resolution, so that no more of a picture need be kept here.
    small = torch.stack(
        [F.interpolate(x.float(), size=disparity.shape[-2:], mode="area").round().to(torch.uint8) for x in pictures]
    )
    places = Places(config.place, config.headings, config.growing)
    shapes = small.shape[2:], disparity.shape[2:]
    memory = EpisodicMemory.start(len(was), config.slots, *shapes, str(device), config.trail)
    randoms = [torch.Generator().manual_seed(seed % 2**63) for seed in seeds]
    nothing = torch.zeros(len(was), config.views, device=device)
    found = [(nothing.long(), nothing[..., None].expand(-1, -1, 3), nothing > 0)]
    for t in range(was.shape[1]):
        now = torch.full((len(was),), t, device=device)
        if t % STRETCH == 0:
            hidden, length, kind = torch.stack([torch.rand(3, generator=random) for random in randoms]).T
            shortest = (SHORTEST * (LONGEST / SHORTEST) ** length).round().long()
            young = torch.where(hidden < HIDDEN, shortest, YOUNG).to(device)
            missing = (kind < MISSING).to(device)
            wrong = [i for i, x in enumerate(kind.tolist()) if MISSING <= x < MISSING + WRONG]
        if t:
            if led is not None:
                coming[:, t - 1] = led[:, t]
            elif free is not None:
                coming[:, t - 1], _ = memory.coming(places, coming[:, t - 1], free[:, t - 1])
            pose = move(memory.pose, coming[:, t - 1])
            which, sources, there = memory.choose(places, pose, now, config.views, geometry.focal, young)
            times = memory.times.flatten(1).gather(1, which)
            for i in wrong:  # what it recalls is of another place
                times[i] = int(torch.randint(t, (), generator=randoms[i]))
            found.append((times, sources, there & ~missing[:, None]))
        memory.arrive(places, was[:, t], small[:, t], disparity[:, t], now, geometry.focal, sure)
    which, sources, there = (torch.stack(x, 1) for x in zip(*found, strict=True))
    return which, sources, there, coming.roll(1, 1)


def main(arguments: list[str]) -> int:
    """`python -m train views`."""
    options = tools.views().parse_args(arguments)
    use_all_cores()
    device = usable(options.device)
    networks = load_geometry(options.geometry, device), load_tokenizer(options.tokenizer, device)
    draw_views(options.latents, *networks, options.aligned)
    return 0
