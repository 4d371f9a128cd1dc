"""The views that the denoiser reads of each recorded frame, drawn once, beside the latents.

    python -m train views --latents DIR --geometry CKPT --tokenizer CKPT

First-person memory walks through every episode as in play: poses are dead-reckoned, frames kept in the same bounded
store, sources chosen and drawn by the same functions, and the last frames warped to where each action leads. In half of
the stretches of `STRETCH` frames, memory hides the last 20 to 256 frames, since what was seen a moment ago is easiest;
now and then it gives nothing, or something wrong. Views are drawn from the predicted step, as in play. With `--aligned`
they are drawn from the recorded step (estimated from the pictures where there are no poses), since an aligned network
draws the frame as it looks from there. An atlas is not used: an episode shows enough to learn from, and a dream must
also do without.

A world that scrolls is drawn from the recorded pictures, where they say that the screen is.

Writes `views-00000.npy` (float16, F x V (C + COVER) x h x w; of first-person memory the recalled view, then the warped
one) beside `latents-00000.npy`. A run that is stopped continues at its last whole shard.

Legend: E episodes, F frames of one, P of a part of it, R recalled frames, C latent channels, h, w latent grid.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import singledispatch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data_collect.errors import UserError
from data_collect.files import whole
from data_collect.lock import folder_lock
from data_collect.shards.remote import Place, on_disk
from data_collect.shards.writer import write_atomic
from game_wm.deadline import NEVER, Deadline, left_out
from game_wm.device import usable
from game_wm.memory.first_person.camera import Sources
from game_wm.memory.first_person.episodic import YOUNG
from game_wm.memory.first_person.recent import KEPT, RecentFrames
from game_wm.memory.first_person.system import FirstPersonMemory
from game_wm.memory.protocol import Frame, Memory, Prompt
from game_wm.memory.scroll.system import ScrollMemory
from game_wm.memory.views import as_latents
from game_wm.model.tokenizer import Tokenizer
from train.checkpoints import load_memory, load_tokenizer
from train.commands import tools
from train.data.encode import LEAST, LONGER, tokenizer_hash
from train.data.latents import LatentStore, latent_folders, shard_name
from train.data.recordings import recorded_pictures
from train.data.spans import Span, spread_out
from train.report.console import Task, say
from train.report.machine import use_all_cores
from train.spread import spread

STRETCH = 64
HIDDEN, SHORTEST, LONGEST = 0.5, 20, 256
MISSING, WRONG = 0.05, 0.03  # of the stretches
BATCH, BATCH_GPU = 16, 2048  # frames that are drawn at once: on a processor, what its cache holds
TOGETHER = 128  # episodes that a GPU walks through at once


def draw_views(
    latents: str | Place, memory: Memory, tokenizer: Tokenizer, aligned: bool = False, deadline: Deadline = NEVER
) -> bool:
    """Write the views of all frames; False when that had been done. Raises `UserError` where it cannot.

    Episodes whose views do not end before the `deadline` are left out, and are not trained on where views are."""
    store, folder = LatentStore(latents), on_disk(latents)
    if store.index["tokenizer"] != tokenizer_hash(tokenizer):
        raise UserError(f"{latents} was encoded by another tokenizer: name that one with --tokenizer")
    memory = memory.for_recordings(aligned)
    parts = [np.zeros(0), *(value.cpu().flatten().numpy() for value in memory.weights())]
    weights = np.concatenate(parts, dtype=np.float64)
    key = store.views_key(aligned) + f"{(weights * np.arange(1, len(weights) + 1)).sum():.6e}"
    path = folder / "views.json"
    try:
        found = json.loads(path.read_text())
        done = int(found["shards"]) if found["key"] == key else 0
        if done and "drawn" in found and deadline.seconds > LONGER * found["seconds"]:
            done = 0  # there is time for more
    except (FileNotFoundError, ValueError, LookupError, TypeError):  # none, or damaged: they are drawn anew
        done = 0
    if done == len(store.files):
        say(f"{latents}: views are up to date")
        return False
    with folder_lock(folder):
        drawn = _draw_shards(store, memory, tokenizer, key, done, deadline)
    say(f"{latents}: views of {drawn} frames")
    return True


def _draw_shards(
    store: LatentStore, memory: Memory, tokenizer: Tokenizer, key: str, done: int, deadline: Deadline
) -> int:
    """Draw the views from a shard on, and write each shard when it is whole; the number of frames that have any."""
    path, sizes, shards = on_disk(store.directory) / "views.json", store.index["shards"], dict[int, np.ndarray]()
    home = [episode["shard"] for episode in store.episodes]
    drawn = {i for i, shard in enumerate(home) if shard < done}
    ahead = sorted((i for i, shard in enumerate(home) if shard >= done), key=lambda i: home[i])
    groups = [[i for i in ahead if store.episodes[i]["recording"] == number] for number in store.recordings]
    if not deadline.never:
        ahead = [groups[group][i] for group, i in spread_out([len(group) for group in groups])]
    waiting = Counter(home[i] for i in ahead)
    with ExitStack() as stack:
        write_atomic(path, json.dumps({"key": key, "shards": done}))
        task = stack.enter_context(Task("views", sum(sizes), "frames"))
        task.advance(sum(sizes[:done]))
        each = views_of(stack, store, ahead, memory, tokenizer)
        for number in deadline.each(ahead, LEAST * len(groups), store.lengths.__getitem__):
            views, episode = next(each), store.episodes[number]
            rows = shards.setdefault(home[number], np.zeros((sizes[home[number]], *views.shape[1:]), np.float16))
            rows[episode["offset"] :][: episode["frames"]] = views
            drawn.add(number)
            waiting[home[number]] -= 1
            task.advance(episode["frames"])
            while done < len(sizes) and not waiting[done]:
                _write_shard(store, done, shards.pop(done))
                done += 1
                write_atomic(path, json.dumps({"key": key, "shards": done}))
    if done == len(sizes):
        return sum(sizes)
    for number in range(done, len(sizes)):
        _write_shard(store, number, shards.pop(number, np.zeros((sizes[number], *views.shape[1:]), np.float16)))
    told = {"key": key, "shards": len(sizes), "drawn": sorted(drawn), "seconds": deadline.seconds}
    write_atomic(path, json.dumps(told))
    frames = sum(store.lengths[number] for number in drawn)
    say(left_out("views", frames, sum(sizes), "frames"))
    return frames


def _write_shard(store: LatentStore, number: int, views: np.ndarray) -> None:
    with whole(on_disk(store.directory) / shard_name("views", number)) as file:
        np.save(file, views)


def views_of(
    stack: ExitStack, store: LatentStore, episodes: list[int], memory: Memory, tokenizer: Tokenizer
) -> Iterator[np.ndarray]:
    """The views of these episodes in turn: on a GPU many at once, else by one process a core (few are matrix
    products)."""
    if next(tokenizer.parameters()).device.type != "cpu":
        groups = [episodes[i : i + TOGETHER] for i in range(0, len(episodes), TOGETHER)]
        return (views for group in groups for views in draw_episodes(memory, store, group, tokenizer))
    cores = torch.get_num_threads()
    if cores == 1 or len(episodes) == 1:
        return (draw_episodes(memory, store, [number], tokenizer)[0] for number in episodes)
    about = store.folders, memory, tokenizer
    return stack.enter_context(spread("train.first_person.draw_views:worker", about, episodes, cores))


def worker(latents: list[str], memory: Memory, tokenizer: Tokenizer) -> Callable[[int], np.ndarray]:
    """What a process of `spread` does: the number of an episode -> its views."""
    store = LatentStore(latents)
    return lambda number: draw_episodes(memory, store, [number], tokenizer)[0]


@singledispatch
@torch.no_grad()
def draw_episodes(memory: Memory, store: LatentStore, numbers: list[int], tokenizer: Tokenizer) -> list[np.ndarray]:
    """The views (F, V * (C + COVER), h, w), float16, of each of these episodes; zero for its first frame. Any memory
    goes frame by frame, as in play; those below have ways of their own."""
    device, drawn = next(tokenizer.parameters()).device, []
    for number in numbers:
        prompt = read_episodes(store, [number], device, memory.placed)
        (state, recorded), views = memory.start_window(prompt, 1, tokenizer), list[Tensor]()
        for t in range(1, prompt.latents.shape[1]):
            latent, action = prompt.latents[:, t], prompt.actions[:, t - 1]
            step = memory.foresee(state, action) if recorded is None else recorded[t - 1]
            found = memory.views(state, step, tokenizer)
            assert found is not None, "a memory without views has nothing to draw"
            views.append(found)
            memory.commit(state, step, Frame(latent, tokenizer.decode(latent), action))
            memory.store(state, step)
        drawn.append(F.pad(torch.cat(views), (0, 0, 0, 0, 0, 0, 1, 0)).half().cpu().numpy())
    return drawn


@draw_episodes.register
@torch.no_grad()
def scroll(memory: ScrollMemory, store: LatentStore, numbers: list[int], tokenizer: Tokenizer) -> list[np.ndarray]:
    """Drawn from the recorded pictures, which play begins with, too."""
    device, drawn = next(tokenizer.parameters()).device, []
    for number in numbers:
        prompt = read_episodes(store, [number], device, memory.placed)
        pictures = torch.from_numpy(recorded_pictures(store, number)).to(device)
        shown = [memory.shown(step) for _, step in memory.walk(prompt, pictures[None])]
        views = []
        for picture, known in zip(*(torch.cat(x).split(BATCH) for x in zip(*shown, strict=True)), strict=True):
            views.append(as_latents(tokenizer, [(tokenizer.to_unit(picture), known)]))
        drawn.append(F.pad(torch.cat(views), (0, 0, 0, 0, 0, 0, 1, 0)).half().cpu().numpy())
    return drawn


@draw_episodes.register
@torch.no_grad()
def first_person(
    memory: FirstPersonMemory, store: LatentStore, numbers: list[int], tokenizer: Tokenizer
) -> list[np.ndarray]:
    """The same for first-person memory: all episodes walk at once (`walk`), and then frames are drawn in batches."""
    device, lengths = memory.geometry.focal.device, [store.lengths[number] for number in numbers]
    prompt = read_episodes(store, numbers, device, memory.placed)
    with torch.autocast(device.type, torch.bfloat16):
        frames = memory.read(prompt, tokenizer)
    seeds = [store.episodes[n]["seed"] for n in numbers]
    recalled = walk(memory, frames, prompt, seeds)
    drawn = []
    at = torch.arange(prompt.latents.shape[1], device=device).repeat(len(numbers), 1)
    episode = torch.arange(len(numbers), device=device)[:, None].expand_as(at)
    kept = at < torch.tensor(lengths, device=device)[:, None]
    for e, t in zip(*(x[kept].split(BATCH if device.type == "cpu" else BATCH_GPU) for x in (episode, at)), strict=True):
        times, away, there, motion = (x[e, t] for x in recalled)
        rows = times * there
        sources = Sources(frames.pictures[e[:, None], rows], frames.disparity[e[:, None], rows], away, there)
        recent = stretches(frames, e, t).sources(memory.geometry, motion)
        with torch.autocast(device.type, torch.bfloat16):
            views = memory.draw(sources, recent, tokenizer).half()
        views[t == 0] = 0
        drawn.append(views.cpu())
    return [part.numpy() for part in torch.cat(drawn).split(lengths)]


def read_episodes(store: LatentStore, numbers: list[int], device: torch.device, poses: bool = False) -> Prompt:
    """Recorded episodes in 32 bits, the last frame of the shorter ones repeated; with `poses`, if there are any."""
    longest = max(store.lengths[number] for number in numbers)
    spans = [Span(number, 0, store.lengths[number]) for number in numbers]
    latents, actions, *rest = (
        torch.stack([lengthened(store.read(name, span), longest) for span in spans]).to(device)
        for name in ["latents", "actions", *(["pose"] if poses and store.index["pose"] else [])]
    )
    return Prompt(latents, actions, None, *rest)


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


class Lapses:
    """What memory is made to miss: by chance, anew for every stretch of `STRETCH` frames of each episode."""

    def __init__(self, seeds: list[int], device: torch.device) -> None:
        self.randoms = [torch.Generator().manual_seed(seed % 2**63) for seed in seeds]
        self.device = device

    def begin(self) -> None:
        """A new stretch: frames of `young` frames or less are hidden, `missing` episodes recall nothing, and what the
        `wrong` ones recall is of another place."""
        hidden, length, kind = torch.stack([torch.rand(3, generator=random) for random in self.randoms]).T
        shortest = (SHORTEST * (LONGEST / SHORTEST) ** length).round().long()
        self.young = torch.where(hidden < HIDDEN, shortest, YOUNG).to(self.device)
        self.missing = (kind < MISSING).to(self.device)
        self.wrong = [i for i, x in enumerate(kind.tolist()) if MISSING <= x < MISSING + WRONG]

    def confuse(self, times_ER: Tensor, now: int) -> None:
        """Have the wrong ones recall any frame, in place."""
        for i in self.wrong:
            times_ER[i] = int(torch.randint(now, (), generator=self.randoms[i]))


def walk(
    memory: FirstPersonMemory, frames: RecentFrames, prompt: Prompt, seeds: list[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each frame of E episodes: which frames are recalled (E, F, R), their poses seen from its own (E, F, R, 3),
    whether there is one (E, F, R), and the step (E, F, 3) that led to it: predicted, or that of an aligned network."""
    actions, steps = prompt.actions, frames.steps
    pasts = memory.geometry.motion.pasts(steps, frames.actions)[:, 1:]
    expected = memory.expected(*(x.flatten(0, 1) for x in (frames.pairs, actions, pasts)))
    seen, free = (x.view_as(steps) for x in expected)
    # Positions are put right at this resolution, so that no more of a picture need be kept here.
    size = frames.disparity.shape[-2:]
    small = [F.interpolate(x.float(), size=size, mode="area").round().to(torch.uint8) for x in frames.pictures]
    kept = replace(frames, pictures=torch.stack(small))
    store, lapses = memory.empty(kept.pictures, kept.disparity), Lapses(seeds, steps.device)
    nothing = torch.zeros(len(steps), memory.geometry.config.views, device=steps.device)
    found = [(nothing.long(), nothing[..., None].expand(-1, -1, 3), nothing > 0, steps[:, 0])]
    for t in range(steps.shape[1]):
        if t % STRETCH == 0:
            lapses.begin()
        if t:
            now = torch.full((len(steps),), t, device=steps.device)
            motion = steps[:, t] if memory.aligned else memory.predict(store, seen[:, t - 1], free[:, t - 1])[0]
            which, away, there = memory.choose(store, motion, now, lapses.young)
            times = store.times.flatten(1).gather(1, which)
            lapses.confuse(times, t)
            found.append((times, away, there & ~lapses.missing[:, None], motion))
        memory.arrive(store, kept, t, sure=prompt.poses is not None)
    times, away, there, motion = (torch.stack(x, 1) for x in zip(*found, strict=True))
    return times, away, there, motion


def main(arguments: list[str]) -> int:
    options = tools.views().parse_args(arguments)
    use_all_cores()
    device = usable(options.device)
    networks = load_memory(options.geometry, device), load_tokenizer(options.tokenizer, device)
    for folder in latent_folders(on_disk(options.latents)):
        draw_views(folder, *networks, options.aligned)
    return 0
