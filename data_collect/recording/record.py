"""`record`: from a game and a player to a folder of shards, with any number of workers, and again after a stop.

    python -m data_collect record --game maze --player explorer --frames 20000 --workers 2 --out data/maze

Run it again on the same folder and it continues to `--frames`; after `kill -9`, after a full disk, or with more frames
than before. The same seed and number of frames give the same episodes whatever the number of workers.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from data_collect import games, players
from data_collect.dataset import CARD, SETTINGS, Dataset, differing, read_settings
from data_collect.errors import UserError
from data_collect.guest.guest import Guest
from data_collect.lock import folder_lock
from data_collect.recording.plan import Plan
from data_collect.recording.recorder import EpisodeRecorder, seeds
from data_collect.recording.workers import Children, Pool
from data_collect.shards.chunk import Chunk
from data_collect.shards.index import INDEX, OLD_INDEX, append_index, row_of
from data_collect.shards.remote import on_disk
from data_collect.shards.writer import ShardWriter, salvage, write_atomic

if TYPE_CHECKING:
    from data_collect.recording.cluster import RayCrew

EPISODE_FRAMES = 2048


def record(
    out: str | Path, game: str, player: str, frames: int, workers: int | str = 1, seed: int | None = None,
    episode_frames: int | None = None, minutes: float | None = None,
) -> Dataset:  # fmt: skip
    """Record until `out` holds `frames` frames, or for so many minutes; what is there already counts. Seed and episode
    length not given are those of the folder, or 0 and 2048. `UserError`: another recording in the folder, a bad game,
    player or number."""
    crew = _crew(workers)
    for name, value, least in (("frames", frames, 2), ("workers", crew.count, 1), ("seed", seed, 0)):
        if value is not None and value < least:
            raise UserError(f"--{name} {value} is too small: give at least {least}")
    if minutes is not None and not minutes >= 0:
        raise UserError(f"--minutes {minutes} is too small: give at least 0, which records an episode")
    if episode_frames is not None and episode_frames < 2:
        raise UserError(f"--episode-frames {episode_frames} is too small: an episode has at least 2 frames")
    folder = on_disk(out)
    with Guest(game, frame=_frame_size(folder)) as env:
        game, schema = env.game, env.action_schema.to_json()
        if player == "human":
            players.make(player, env)
        else:
            env.check(player)  # complains now rather than in every worker
        wanted = {"game": game, "player": player, "recording_seed": seed, "episode_frames": episode_frames}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder} cannot be made ({error.strerror}); choose another --out") from None
        with folder_lock(folder) as share:
            settings = _settings(folder, wanted | {"schema": schema})
            salvage(folder)
            share()
            dataset = Dataset(folder, rebuild=True)
            _write_index(dataset)  # the old one may say anything
            plan = Plan(frames, settings["episode_frames"], dataset.index.by_episode(), minutes)
            if player == "human":
                # What a human did cannot be played again: unfinished episodes stay as they are.
                for number, refs in plan.kept.items():
                    plan.finish(number, sum(ref.frames for ref in refs))
            try:
                progress = Meter(dataset.index.total("frames"), frames)
                with progress.bar:
                    progress.say(_becomes(game, env))
                    if workers in (1, "1") or player == "human":
                        _record_here(env, dataset, plan, settings, progress)
                    else:
                        env.close()
                        on_shard = lambda name: append_index(folder, row_of(folder / name))  # noqa: E731
                        Pool(dataset, plan, settings, crew, progress.add, on_shard, progress.say).run()
            finally:
                dataset = publish(folder, plan)
    return dataset


def _crew(workers: int | str) -> Children | RayCrew:
    """Of 4, "4", "ray" or "ray:4"."""
    kind, _, count = str(workers).partition(":")
    if kind == "ray" and (count or "0").isdecimal():
        from data_collect.recording.cluster import RayCrew

        return RayCrew(int(count or 0))
    try:
        return Children(int(workers))
    except ValueError:
        raise UserError(f"--workers {workers} must be a number, ray or ray:NUMBER") from None


def _settings(folder: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """The recording's settings, those of the folder where it has any; written to the card of a new folder."""
    has = ((folder / CARD).exists() or any(folder.glob("shard-*.tar"))) and not _never_begun(folder)
    if has:
        settings = read_settings(folder)
    else:
        if next(
            (path for path in folder.iterdir() if not path.name.startswith((".", "shard-", OLD_INDEX, CARD))), None
        ):
            raise UserError(f"{folder} holds other files and no recording: choose an empty folder for --out")
        settings = {"recording_seed": 0, "episode_frames": EPISODE_FRAMES}
        settings |= {name: value for name, value in wanted.items() if value is not None}
    for name in differing(settings, settings | {name: value for name, value in wanted.items() if value is not None}):
        if name == "schema":
            one, other = (_about(each["schema"]) for each in (settings, wanted))
        else:
            one, other = f"{name.replace('_', ' ')} {settings[name]}", wanted[name]
        raise UserError(f"{folder} holds a recording of {one}, not {other}: choose another --out")
    if not has:
        write_atomic(folder / CARD, json.dumps({name: settings[name] for name in SETTINGS}, indent=1))
    elif settings["schema"] != wanted["schema"]:
        settings["schema"] = wanted["schema"]  # other keys for the same actions: the newest count
        card = json.loads((folder / CARD).read_text()) if (folder / CARD).exists() else {}
        write_atomic(folder / CARD, json.dumps(card | settings, indent=1))
    return settings


def _becomes(game: str, env: Any) -> str:
    """The size and rate of what is recorded, and how to ask for others."""
    height, width = env.observation_space.shape[:2]
    note = env.metadata.get("note") or f"{width}x{height}, {env.action_schema.fps:.3g} frames/s"
    name = game.partition("?")[0]
    choose = "&".join(f"{option}=…" for option in ("width", "height", "skip") if option in games.option_names(game))
    return f"{name}: {note}" + (f"; for another size or rate: --game '{name}?{choose}'" if choose else "")


def _about(schema: dict[str, Any]) -> str:
    """Actions in a few words, for two that differ."""
    return f"{schema['kind']} actions {', '.join(schema['names'][:20])} at {schema['fps']:g} frames/s"


def _frame_size(folder: Path) -> tuple[int, int] | None:
    """(width, height) of the frames in the folder: a recording is continued as it was begun."""
    try:
        return Dataset(folder).frame_size
    except UserError:
        return None  # there is none yet, or it is damaged and told later


def _never_begun(folder: Path) -> bool:
    """Whether all that a recorder left is a card without a frame, as where no window came for a human."""
    if any(folder.glob("shard-*")):
        return False
    try:
        card = json.loads((folder / CARD).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(card, dict) and not card.get("frames")


def _record_here(env: Any, dataset: Dataset, plan: Plan, settings: dict[str, Any], progress: Meter) -> None:
    """Record in this process, one episode after the other."""
    folder = on_disk(dataset.folder)
    with ShardWriter(folder) as writer:

        def add(chunk: Chunk) -> None:
            shards = len(writer.closed)
            progress.add(writer.add(chunk).frames)
            for name in writer.closed[shards:]:
                append_index(folder, row_of(folder / name))

        recorder = EpisodeRecorder(env, settings, add, dataset.read)
        while (number := plan.take()) is not None:
            kept = plan.kept.get(number, [])
            try:
                frames, fault = recorder.record_or_keep(number, plan.limit(number), kept, progress.say)
            except players.Quit:
                break
            plan.finish(number, frames, fault)


def _write_index(dataset: Dataset) -> None:
    folder = on_disk(dataset.folder)
    write_atomic(folder / INDEX, dataset.index_text())
    (folder / OLD_INDEX).unlink(missing_ok=True)


def publish(folder: Path, plan: Plan | None = None) -> Dataset:
    """Write index and card anew from the shards, reading only those that the index does not know, and from what the
    `plan` knows of episodes of which nothing is kept."""
    try:
        dataset = Dataset(folder)
    except UserError:
        dataset = Dataset(folder, rebuild=True)
    if plan is not None:
        known = {row["episode"] for row in dataset.faults} | set(dataset.index.rows["episode"].tolist())
        for number, why in plan.faults.items():
            if number not in known:
                seed = seeds(dataset.settings["recording_seed"], number)[0]
                dataset.faults.append({"episode": number, "seed": seed, "steps": 0, "why": why})
        dataset.faults.sort(key=lambda row: row["episode"])
    _write_index(dataset)
    write_atomic(folder / CARD, json.dumps(dataset.card, indent=1))
    return dataset


class Meter:
    """Counts frames; a bar in a terminal, a line every ten seconds elsewhere."""

    def __init__(self, have: int, total: int) -> None:
        self.have, self.total, self.done = have, total, 0
        self.console = Console(stderr=True)
        self.started = self.told = time.monotonic()
        self.bar = Progress(
            TextColumn("recording"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]:,.0f} frames/s"),
            TimeRemainingColumn(), console=self.console, disable=not self.console.is_terminal,
        )  # fmt: skip
        self.task = self.bar.add_task("frames", total=total, completed=have, rate=0.0)

    @property
    def rate(self) -> float:
        """Frames per second since the start."""
        return self.done / max(time.monotonic() - self.started, 1e-3)

    def add(self, frames: int) -> None:
        """Count frames that are now on disk."""
        self.done += frames
        self.bar.update(self.task, advance=frames, rate=self.rate)
        now = time.monotonic()
        if self.bar.disable and now - self.told > 10:
            self.told = now
            have = self.have + self.done
            left = max(self.total - have, 0) / max(self.rate, 1e-3)
            self.say(f"{have:,} of {self.total:,} frames, {self.rate:,.0f} frames/s, {left:,.0f} s left")

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self.console.print(line, highlight=False, soft_wrap=True, markup=False, emoji=False)
