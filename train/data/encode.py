"""A recording through the tokenizer, once: latent shards that dynamics and distillation train on.

    python -m train encode --data runs/maze/data --tokenizer runs/maze/tokenizer/last.ckpt --out runs/maze/latents

Writes `latents-00000.npy` (float16, F x C x h x w, whole episodes one after another) and, row for row, `actions-`,
`rewards-`, `terminated-` and, where the game gives poses, `pose-00000.npy`; `index.json` says where each episode lies.
A stopped run continues at its last whole shard. So does one with recordings added after those it knows.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_collect.dataset import CARD
from data_collect.errors import UserError
from data_collect.files import whole
from data_collect.lock import folder_lock
from data_collect.schema import ActionSchema
from data_collect.shards.chunk import ChunkRef
from data_collect.shards.remote import Place, RemotePath, on_disk
from data_collect.shards.writer import write_atomic
from game_wm.deadline import NEVER, Deadline, left_out
from game_wm.device import usable
from game_wm.model.fsq import Codebook
from game_wm.model.tokenizer import Tokenizer
from train.checkpoints import load_tokenizer
from train.commands import tools
from train.data.corpus import CORPUS, laid, open_corpus, union
from train.data.latents import PART, shard_name
from train.data.recordings import Recording, open_recordings
from train.data.spans import spread_out
from train.report.console import Task, say
from train.report.machine import use_all_cores

SHARD_FRAMES = 16384
BATCH = 128
AHEAD = 4  # chunks that are read and decoded while one is encoded
LEAST = 2  # episodes of each recording that are encoded even without time: one of them is held out
LONGER = 1.5  # times as much time lets what was left out be encoded


def tokenizer_hash(tokenizer: Tokenizer) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(tokenizer.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def encode(
    data: list[str], tokenizer: Tokenizer, out: str | Path, device: str = "cpu", mixed: bool = False,
    deadline: Deadline = NEVER, part: tuple[int, int] = (1, 1),
) -> bool:  # fmt: skip
    """Encode recordings into `out`; returns False when that had been done. Raises `UserError` for unfit recordings.

    `mixed`: they may be of different games; their actions are laid side by side (`corpus.union`). Of what does not end
    before the `deadline`, as many episodes are left out of each recording; with a later one, work goes on.
    `part` (i, n): every nth episode from the ith on, for n folders that are trained on together.
    """
    recordings, folder = open_corpus(data, one_size=True) if mixed else open_recordings(data), on_disk(out)
    for recording in recordings:
        size, wanted = (recording.width, recording.height), (tokenizer.config.width, tokenizer.config.height)
        if size != wanted:
            found, taken = (f"{width}x{height}" for width, height in (size, wanted))
            raise UserError(f"{recording.dataset.folder} has frames of {found}, the tokenizer takes {taken}")
    folder.mkdir(parents=True, exist_ok=True)
    with folder_lock(folder):
        return _encode(recordings, tokenizer, folder, device, mixed, deadline, part)


def _encode(
    recordings: list[Recording], tokenizer: Tokenizer, folder: Path, device: str, mixed: bool, deadline: Deadline,
    part: tuple[int, int],
) -> bool:  # fmt: skip
    first, own, (number, of) = recordings[0], tokenizer_hash(tokenizer), part
    begins = own + "+mixed" * mixed + (f"{PART}{number}/{of}" if of > 1 else "")
    key = "-".join([begins, *(recording.key for recording in recordings)])
    index = _begin(folder, key)
    every = {(i, number): frames for i, recording in enumerate(recordings)
             for number, frames in zip(recording.dataset.by_episode, recording.lengths)}  # fmt: skip
    there = {(episode["recording"], episode["episode"]) for episode in index["episodes"]}
    wanted = list(every)[number - 1 :: of]
    missing = [place for place in wanted if place not in there]
    if index.get("complete") and not (missing and deadline.seconds > LONGER * index["seconds"]):
        say(f"{folder} is up to date: {sum(index['shards'])} frames")
        return False
    game, schema, blocks = first.dataset.game, first.dataset.schema, dict[str, int]()
    if mixed:
        game, (schema, blocks) = CORPUS, union(recordings)
    index |= {
        "key": key, "tokenizer": own, "game": game, "schema": schema.to_json(), "complete": False,
        "latent_shape": [tokenizer.config.channels, *tokenizer.config.grid], "levels": list(tokenizer.config.levels),
        "data": [_place(recording.dataset.folder, folder) for recording in recordings],
    }  # fmt: skip
    if not deadline.never:
        numbers, left = [list(recording.dataset.by_episode) for recording in recordings], set(missing)
        spread = [(i, numbers[i][k]) for i, k in spread_out([len(each) for each in numbers])]
        missing = [place for place in spread if place in left]
    encoder, rows = Encoder(tokenizer, device), list[dict[str, np.ndarray]]()
    with Task("encode", sum(every[place] for place in wanted), "frames") as task:
        task.advance(sum(index["shards"]))
        for place in deadline.each(missing, LEAST * len(recordings), lambda place: every[place]):
            recording, offset = recordings[place[0]], sum(len(row["latents"]) for row in rows)
            refs = recording.dataset.by_episode[place[1]]
            rows.append(_encode_episode(recording, refs, encoder, task))
            index["episodes"].append(
                {"recording": place[0], "episode": place[1], "seed": refs[0].seed, "shard": len(index["shards"]),
                 "offset": offset, "frames": every[place]}
            )  # fmt: skip
            if mixed:
                index["episodes"][-1]["game"] = own_game = recording.dataset.game
                rows[-1]["actions"] = laid(rows[-1]["actions"], blocks[own_game], schema.size)
            if offset + every[place] >= SHARD_FRAMES:
                _add_shard(folder, index, rows)
        if rows:
            _add_shard(folder, index, rows)
    _finish(folder, index, every, wanted, deadline)
    return True


def _add_shard(folder: Path, index: dict[str, Any], rows: list[dict[str, np.ndarray]]) -> None:
    """Write the episodes of a shard, and take them out of `rows`."""
    index["shards"].append(write_shard(folder, len(index["shards"]), rows))
    index["pose"] = (len(index["shards"]) == 1 or index["pose"]) and all("pose" in row for row in rows)
    write_atomic(folder / "index.json", json.dumps(index))
    rows.clear()


def _finish(
    folder: Path, index: dict[str, Any], every: dict[tuple[int, int], int], wanted: list[tuple[int, int]],
    deadline: Deadline,
) -> None:  # fmt: skip
    """Complete the index: episodes as they were recorded, and of those that were left out, how long they are."""
    places, frames = {place: i for i, place in enumerate(every)}, sum(index["shards"])
    index["episodes"].sort(key=lambda episode: places[episode["recording"], episode["episode"]])
    index |= {"complete": True, "recorded": [(*place, length) for place, length in every.items()]}
    if len(index["episodes"]) == len(every):
        del index["recorded"]
    if len(index["episodes"]) < len(wanted):
        index["seconds"] = deadline.seconds
        say(left_out("encode", frames, sum(every[place] for place in wanted), "frames"))
    write_atomic(folder / "index.json", json.dumps(index))
    say(f"{folder}: {frames} frames of {len(index['episodes'])} episodes")


def _begin(folder: Path, key: str) -> dict[str, Any]:
    """The index to continue: of the same work or of a part of it; else an empty one, in an emptied folder."""
    if (folder / CARD).exists():
        raise UserError(f"{folder} holds a recording: choose another --out")
    try:
        index = json.loads((folder / "index.json").read_text())
        if index["key"] == key:
            return index
        if key.startswith(index["key"] + "-"):  # recordings were added: the last shard has room for more episodes
            last = len(index["shards"]) - 1
            episodes = [episode for episode in index["episodes"] if episode["shard"] < last]
            return index | {"complete": False, "shards": index["shards"][:last], "episodes": episodes}
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{folder}/index.json is no index of encoded frames: choose another --out") from None
    return {"version": 1, "complete": False, "shards": [], "episodes": [], "pose": False}


def _place(recording: Place, latents: Path) -> dict[str, str]:
    """Where a recording lies, so that it is found again (`train.data.recordings.recordings_of`)."""
    if isinstance(recording, RemotePath):
        return {"from_latents": str(recording), "absolute": str(recording)}
    absolute = recording.resolve()
    try:
        return {"from_latents": os.path.relpath(absolute, latents.resolve()), "absolute": str(absolute)}
    except ValueError:  # on another drive
        return {"from_latents": str(absolute), "absolute": str(absolute)}


class Encoder:
    """Frames to float16 latents, in bf16 where that is clearly faster on this machine. `seconds`: of a frame."""

    def __init__(self, tokenizer: Tokenizer, device: str) -> None:
        self.tokenizer, self.device = tokenizer.to(device).eval(), torch.device(device)
        trial = torch.zeros(32, tokenizer.config.height, tokenizer.config.width, 3, dtype=torch.uint8)
        seconds = []
        for self.half in (False, True):
            self(trial)
            start = time.perf_counter()
            self(trial)
            seconds.append(time.perf_counter() - start)
        self.half = seconds[1] < 0.85 * seconds[0]
        self.seconds = seconds[self.half] / len(trial)

    @torch.inference_mode()
    def __call__(self, frames: Tensor, last: Tensor | None = None) -> Tensor:
        """uint8 frames (F, H, W, 3) that follow the frame `last` (H, W, 3), if any -> float16 (F, C, h, w) on the
        CPU."""
        before = torch.cat((frames[:1] if last is None else last[None], frames[:-1]))
        parts = zip(frames.split(BATCH), before.split(BATCH))
        with torch.autocast(self.device.type, torch.bfloat16) if self.half else nullcontext():
            latents = [self.tokenizer.encode(*(x.to(self.device) for x in part)) for part in parts]
        coded = torch.cat(latents).to("cpu", torch.float16)
        if not bool(coded.isfinite().all()):
            raise UserError(
                "the tokenizer gives latents that are not finite: train it again, with a lower learning rate"
            )
        return coded


def _encode_episode(
    recording: Recording, refs: Sequence[ChunkRef], encoder: Encoder, task: Task
) -> dict[str, np.ndarray]:
    """Arrays of one episode, one row a frame; action, reward and termination of its last frame are zero."""
    columns, last = defaultdict[str, list[np.ndarray]](list), None
    with ThreadPoolExecutor(AHEAD) as threads:
        coming = [threads.submit(recording.dataset.read, ref) for ref in refs[:AHEAD]]
        for i in range(len(refs)):
            chunk = coming.pop(0).result()
            if i + AHEAD < len(refs):
                coming.append(threads.submit(recording.dataset.read, refs[i + AHEAD]))
            frames = torch.from_numpy(chunk.frames)
            columns["latents"].append(encoder(frames, last).numpy())
            last = frames[-1]
            columns["actions"].append(recording.dataset.schema.encode(chunk.actions))
            columns["rewards"].append(chunk.rewards)
            columns["terminated"].append(chunk.terminated)
            if chunk.pose is not None:
                columns["pose"].append(chunk.pose)
            task.advance(len(chunk.frames))
    arrays = {name: np.concatenate(parts) for name, parts in columns.items()}
    count = len(arrays["latents"])
    for name in ("actions", "rewards", "terminated"):
        # This also drops the action after the last frame, if its result was never recorded.
        rows = np.zeros((count, *arrays[name].shape[1:]), np.float32)
        rows[:-1] = arrays[name][: count - 1]
        arrays[name] = rows
    return arrays


def write_shard(folder: Path, number: int, episodes: list[dict[str, np.ndarray]]) -> int:
    """Write one shard's arrays, synced and renamed; returns its frames."""
    shared = set.intersection(*(set(rows) for rows in episodes))
    for name in sorted(shared):
        path = folder / shard_name(name, number)
        with whole(path) as file:
            np.save(file, np.concatenate([rows[name] for rows in episodes]), allow_pickle=False)
    return sum(len(rows["latents"]) for rows in episodes)


def write_synthetic(
    folder: Path, shape: tuple[int, int, int], actions: int, episodes: int, frames: int, levels: tuple[int, ...] = ()
) -> None:
    """Random latents, or codes of so many levels, in the format of `encode`: for benches that have no recording."""
    folder.mkdir(parents=True, exist_ok=True)
    random, rows, entries = np.random.default_rng(0), list[dict[str, np.ndarray]](), []
    schema = ActionSchema("multibinary", tuple(f"button{i}" for i in range(actions)))
    for number in range(episodes):
        done = np.zeros(frames, np.float32)
        done[-2] = 1
        latents = torch.from_numpy(random.standard_normal((frames, *shape)))
        latents = Codebook(levels).quantise(latents) if levels else latents
        rows.append(
            {"latents": latents.numpy().astype(np.float16),
             "actions": (random.random((frames, actions)) < 0.3).astype(np.float32),
             "rewards": (random.random(frames) < 0.01).astype(np.float32), "terminated": done}
        )  # fmt: skip
        entries.append({"recording": 0, "episode": number, "seed": number, "shard": 0, "offset": number * frames,
                        "frames": frames})  # fmt: skip
    total = write_shard(folder, 0, rows)
    index = {"version": 1, "complete": True, "shards": [total], "episodes": entries, "pose": False, "key": "synthetic",
             "tokenizer": "synthetic", "game": "synthetic", "schema": schema.to_json(), "latent_shape": list(shape),
             "levels": list(levels), "data": []}  # fmt: skip
    write_atomic(folder / "index.json", json.dumps(index))


def main(arguments: list[str]) -> int:
    options = tools.encode().parse_args(arguments)
    use_all_cores()
    device = usable(options.device)
    tokenizer = load_tokenizer(options.tokenizer, device)
    encode(options.data, tokenizer, options.out, device, options.mixed, part=options.part or (1, 1))
    return 0
