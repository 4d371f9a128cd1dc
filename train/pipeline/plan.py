"""What a pipeline is asked for: the entries of its configuration file.

plan = parse(["--config", "configs/own/quick.yaml", "--data", "a", "b"])        # train/pipeline/flags.py
plan.trained                                                                    # ["tokenizer", "dynamics", "distill"]
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from data_collect.errors import UserError

# The stages that train a network, in order, each with its command (`python -m train COMMAND`).
KINDS = {
    "tokenizer": "tokenizer", "geometry": "geometry", "geometry_motion": "geometry", "dynamics": "dynamics",
    "distill": "distill",
}  # fmt: skip
GEOMETRY_PARTS = ("motion", "depth", "atlas", "obstacles")  # made after its training, in order
USES = ("tokenizer", "latents", "level", "contexts")


@dataclass
class Record:
    """What to record, as `python -m data_collect record` takes it.

    Args:
        use: which stages read it: `tokenizer`; `latents`, all other training; `level`, the atlas and the obstacles,
            which read those latents too; or `contexts`: none, but dreams begin where its episodes end.
    """

    game: str = ""
    player: str = "random"
    frames: int = 40_000
    episode_frames: int = 1_000
    workers: int = 2
    seed: int = 0
    use: list[str] = field(default_factory=lambda: ["tokenizer", "latents"])


@dataclass
class Training:
    """A stage that trains: its configuration file and its budget.

    Args:
        values: entries that differ from the file's, by name: {data.batch_size: 16}.
        flags: the same as on a command line: [--data.batch_size, "16"].
        from_base: entries that differ where the stage begins with `init`; `values` win.
    """

    config: str = ""
    minutes: float | None = None
    steps: int | None = None
    values: dict[str, Any] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    from_base: dict[str, Any] = field(default_factory=dict)


@dataclass
class Evaluation:
    """The card: what `python -m game_wm evaluate` measures; without suites there is none."""

    suites: list[str] = field(default_factory=list)
    episodes: int = 64


@dataclass
class Pipeline:
    """The whole path.

    Args:
        name: of the run and of the checkpoint, `RUNS/NAME/NAME.safetensors`.
        data: recordings to train on instead of those that are made.
        recordings: several instead of one, by name: what differs from `record` in each.
        minutes: for everything, recording, encoding and export included. Where every stage has minutes of its own, they
            share these in proportion to those; where some have none, the tokenizer goes on while it gains and dynamics
            has the rest.
        takes: minutes that everything takes as configured. With fewer `minutes` than that, frames, steps of stages
            without minutes and episodes of the evaluation become fewer in proportion; with 0 they never do.
        init: a checkpoint (.safetensors) that tokenizer and dynamics begin with, of this game or others; none: nothing.
        memory: auto: the one that fits the camera of the recording; scroll, first_person or none. What `scroll` or a
            `geometry` says goes first.
        geometry: of episodic memory; without a configuration the model has none, unless `memory` gives it one.
        geometry_motion: the geometry trained on, its motion alone.
        motion: steps of training motion on all recorded steps, for a player with inertia; 0: none.
        depth: steps of training depth on what the game knows of it; 0: none.
        atlas: recorded frames of a level that is always the same, known before play; 0: none.
        obstacles: steps of training what stops a player with inertia; 0: none.
        scroll: steps of training where actions lead a screen that scrolls, for a memory of such a world in place of a
            geometry; 0: none.
        distill: without a configuration (`--distill.config ""`) the dynamics plays as it is.
        contexts: dreams' beginnings in the checkpoint.
        prompt: real frames of each.
        device: cpu, cuda, cuda:1 or mps; auto: cuda where there is one.
    """

    name: str
    record: Record
    tokenizer: Training
    dynamics: Training
    distill: Training = field(default_factory=Training)
    memory: Literal["auto", "none", "scroll", "first_person"] = "none"
    geometry: Training = field(default_factory=Training)
    geometry_motion: Training = field(default_factory=Training)
    motion: int = 0
    depth: int = 0
    atlas: int = 0
    obstacles: int = 0
    scroll: int = 0
    evaluate: Evaluation = field(default_factory=Evaluation)
    runs: str = "runs"
    data: list[str] = field(default_factory=list)
    recordings: dict[str, dict[str, Any]] = field(default_factory=dict)
    minutes: float | None = None
    takes: float = 0
    init: str | None = None
    contexts: int = 8
    prompt: int = 32
    wandb: str = "offline"
    device: str = "auto"

    @property
    def trained(self) -> list[str]:
        """Names of the stages that train a network, in order."""
        return [name for name in KINDS if name in ("tokenizer", "dynamics") or self.training(name).config]

    @property
    def level(self) -> list[str]:
        """Folders of the recordings that the atlas and the obstacles read; none where neither is made."""
        return self.used_for("level") * bool(self.atlas or self.obstacles)

    @property
    def folder(self) -> Path:
        return Path(self.runs, self.name)

    def training(self, name: str) -> Training:
        """The stage of this name."""
        return getattr(self, name)

    def scaled(self, number: int, least: int = 1) -> int:
        """A number of frames, steps or episodes for the `minutes` that there are, but not less than `least`."""
        share = min(1.0, self.minutes / self.takes) if self.minutes and self.takes else 1.0
        return max(min(number, least), round(share * number))

    def to_record(self) -> dict[Path, Record]:
        """The recordings that the pipeline makes, by their folders."""
        if self.data:
            return {}
        found = {} if self.recordings else {self.folder / "data": self.record}
        for name, differs in self.recordings.items():
            if unknown := set(differs) - {each.name for each in fields(Record)}:
                raise UserError(f"recordings: {name}: there is no entry {unknown.pop()!r}")
            found[self.folder / "data" / name] = Record(**asdict(self.record) | differs)
        for folder, record in found.items():
            if wrong := set(record.use) - set(USES):
                raise UserError(f"recording {folder.name}: use: {wrong.pop()!r} is none of {', '.join(USES)}")
        return found

    def used_for(self, *uses: str) -> list[str]:
        """Folders of the recordings that have one of these uses."""
        if self.data:
            return self.data if "contexts" not in uses else []
        return [str(folder) for folder, record in self.to_record().items() if set(uses) & set(record.use)]
