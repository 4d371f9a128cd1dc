"""Reads every chunk of a recording, checks that it is what it says, and plays some episodes again.

print(verify("data/maze", replay="3"))      # or "all"
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from data_collect.dataset import REMEDY, Dataset, differing, evenly
from data_collect.errors import Fault, UserError
from data_collect.guest.guest import Guest
from data_collect.guest.match import Leg
from data_collect.recording.recorder import seeds
from data_collect.shards.chunk import ARRAYS, MAX_STEPS, VERSION, Chunk, ChunkRef
from data_collect.shards.index import INDEX
from data_collect.shards.remote import on_disk
from data_collect.shards.writer import part_files


def verify(folder: str | Path, replay: str = "3") -> str:
    """A summary of what was checked. `UserError` that names the damaged file (and counts the others) if any is."""
    if replay != "all" and not replay.isdecimal():
        raise UserError(f"--replay {replay!r} is neither a number of episodes nor 'all'")
    dataset = Dataset(folder)
    problems: dict[str, str] = {}  # by file, the first of each
    names = {path.name for path in dataset.shards}  # a recorder may be finishing others right now
    if dataset.index != [ref for ref in Dataset(folder, rebuild=True).index if ref.shard in names]:
        problems[INDEX] = "it does not say what the shards hold: delete it, it is made again"
    shape: tuple[int, ...] | None = None
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        for ref in progress.track(dataset.index, description="reading"):
            try:
                chunk = dataset.read(ref)
            except UserError as error:
                problems.setdefault(ref.shard, str(error))
                continue
            shape = shape or chunk.frames.shape[1:]
            if problem := _check(chunk, ref, dataset, shape):
                problems.setdefault(ref.shard, f"chunk {ref.key}: {problem}; {REMEDY}")
        for refs in dataset.index.by_episode().values():
            if problem := _gap(refs, dataset.settings["recording_seed"]):
                problems.setdefault(
                    refs[0].shard, f"episode {refs[0].episode}: {problem}; restore its shard, or run `record` again"
                )
        replayed = "no episode replayed"
        if not problems:
            numbers = list(dataset.by_episode)
            count = len(numbers) if replay == "all" else min(int(replay), len(numbers))
            replayed, problems = _replay(dataset, evenly(numbers, count), progress)
    if problems:
        name, problem = next(iter(problems.items()))
        path = str(dataset.folder / name)
        others = f" (and {len(problems) - 1} more files: {', '.join(list(problems)[1:6])})" if len(problems) > 1 else ""
        raise UserError((problem if path in problem else f"{path}: {problem}") + others)
    return _summary(dataset, replayed)


def _summary(dataset: Dataset, replayed: str) -> str:
    card = dataset.card
    text = (
        f"{dataset.folder}: sound. {card['game']} by {card['player']}, {card['frames']:,} frames in "
        f"{card['episodes']:,} episodes, {card['chunks']:,} chunks, {card['shards']:,} shards; {replayed}."
    )
    if faults := card["faults"]:
        text += f" {len(faults)} episodes end where the game failed."
    cut = sum(not refs[-1].last for refs in dataset.index.by_episode().values())
    if cut:
        text += f" {cut} episodes are cut short."
    if parts := part_files(on_disk(dataset.folder)):
        text += f" {len(parts)} shards are unfinished: run the same `record` command to save what they hold and go on."
    return text


def _check(chunk: Chunk, ref: ChunkRef, dataset: Dataset, shape: tuple[int, ...]) -> str | None:
    """What is wrong with a chunk; None where nothing is."""
    meta, schema, steps = chunk.meta, dataset.schema, len(chunk.actions)
    frames = steps + bool(meta["last"])
    if meta["version"] != VERSION or differing(meta, dataset.settings):
        return "its metadata is of another recording"
    if not 1 <= steps <= MAX_STEPS:
        return f"it has {steps} steps"
    expected: dict[str, tuple[Any, tuple[int, ...]]] = {
        "frames": (np.uint8, (frames, *shape)), "actions": (schema.dtype, (steps, schema.width)),
    }  # fmt: skip
    expected |= {name: (dtype, (steps,)) for name, dtype in ARRAYS.items()}
    expected |= {"pose": (np.float32, (frames, 3))} if chunk.pose is not None else {}
    for name, (dtype, size) in expected.items():
        array = getattr(chunk, name)
        if array.dtype != dtype or array.shape != size:
            return f"{name} are {array.dtype} {array.shape} instead of {np.dtype(dtype)} {size}"
    if (meta["steps"], meta["frames"], meta["height"], meta["width"]) != (steps, frames, *shape[:2]):
        return "its metadata counts other steps or frames than it holds"
    try:
        schema.raw(chunk.actions)
    except UserError as error:
        return str(error)
    if not np.isfinite(chunk.rewards).all() or (chunk.pose is not None and not np.isfinite(chunk.pose).all()):
        return "rewards or poses are not finite"
    ends = chunk.terminated | chunk.truncated
    if ends[:-1].any() or ends[-1] != bool(meta["last"]):
        return "its end is not where the episode ends"
    if meta["actions"] != schema.histogram(chunk.actions) or ChunkRef.of(ref.shard, ref.offset, ref.bytes, meta) != ref:
        return "index and metadata differ"
    return None


def _gap(refs: Sequence[ChunkRef], recording_seed: int) -> str | None:
    """What is missing from an episode or out of place; None where nothing is."""
    start = 0
    for i, ref in enumerate(refs):
        if ref.chunk != i:
            return f"chunk {i} is missing"
        if ref.start != start or (ref.last and i < len(refs) - 1):
            return f"chunk {ref.key} does not follow on the one before"
        if ref.seed != seeds(recording_seed, ref.episode)[0]:
            return f"chunk {ref.key} has the seed of another episode"
        start += ref.steps
    return None


def _replay(dataset: Dataset, numbers: list[int], progress: Progress) -> tuple[str, dict[str, str]]:
    """What was played again, and which files differ from it."""
    try:
        env = Guest(dataset.game, frame=dataset.frame_size)
    except UserError as error:
        return f"not replayed, since the game cannot be started ({error})", {}
    problems: dict[str, str] = {}
    repeats = f", or never repeats itself (record {dataset.game.partition('?')[0]} with replayable=false then)"
    remark = repeats if dataset.game.startswith(("gym:", "pygame:")) else ""
    failed = []
    with env:
        if not env.replayable:
            return "not replayed, since this game does not repeat itself", {}
        for number in progress.track(numbers, description="replaying"):
            shard = dataset.by_episode[number][0].shard
            try:
                problem = replay_episode(dataset, number, env)
            except Fault as fault:
                failed.append(f"episode {number}: {fault}")
                continue
            if problem:
                problems[shard] = (
                    f"episode {number} and its replay differ: {problem}; it was damaged, or the game changed{remark}"
                )
    said = f"{len(numbers) - len(failed)} episodes replayed exactly"
    return said + (f", {len(failed)} not, since the game failed ({failed[0]})" if failed else ""), problems


def replay_episode(dataset: Dataset, number: int, env: Any) -> str | None:
    """Play the recorded actions again in `env`, a guest; the first difference, None without any."""
    episode = dataset.episode(number)
    last = len(episode.actions) - 1
    played = env.play([Leg(episode.actions)], episode.meta["seed"])
    for t, (_, reward, terminated, truncated, frame, info) in enumerate(played, -1):
        if t >= 0 and np.float32(reward) != episode.rewards[t]:
            return f"rewards[{t}]"
        if t >= 0 and terminated != episode.terminated[t]:
            return f"terminated[{t}]"
        # The recorder itself truncates at the length asked for, where the game would go on.
        if t >= 0 and truncated != episode.truncated[t] and not (t == last and episode.truncated[t]):
            return f"truncated[{t}]"
        if not np.array_equal(frame, episode.frames[t + 1]):
            return f"frames[{t + 1}]"
        pose = np.asarray(info.get("pose"), np.float32)
        if episode.pose is not None and not np.array_equal(pose, episode.pose[t + 1]):
            return f"pose[{t + 1}]"
    return None
