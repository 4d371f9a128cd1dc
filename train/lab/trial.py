"""The short protocol by which a choice is judged: quality after the same minutes on this machine.

    python -m train trial configs/trials/maze.yaml [--only base muon] [--minutes 6] [--again]

Every candidate trains the dynamics for the same minutes, on the same latents, with the same seeds, in a process of its
own, then dreams the same held-out episodes. What is finished is skipped, so that an interrupted protocol continues
(`--again` after a change of the code). For each candidate: `RUNS/trials/NAME.json`, `NAME.png` (truth above, dream
below) and `RUNS/trial-NAME/NAME.safetensors`, which `play.py` plays; for all, `RUNS/trials/table.md` and `table.png`.
With `--minutes` other than the protocol's, RUNS is `RUNS/N-minutes`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import ArgumentError, ArgumentParser
from PIL import Image

import data_collect
from data_collect.errors import UserError
from data_collect.files import save_picture, whole
from data_collect.shards.writer import write_atomic
from game_wm.checkpoint import Checkpoint, load, save
from game_wm.evaluation.feature_distance import FeatureDistance
from game_wm.evaluation.fidelity import Fidelity
from game_wm.evaluation.first_person.revisit import revisit
from game_wm.evaluation.options import FIRST_SEED
from game_wm.evaluation.report.card import tidy
from game_wm.evaluation.report.sheet import beside, draw
from game_wm.evaluation.rollout import roll
from game_wm.evaluation.truth import game as real_game
from game_wm.evaluation.truth.game import RealGame
from game_wm.evaluation.truth.plays import Truth, stack
from game_wm.world import WorldModel
from train.assemble import assemble
from train.checkpoints import load_dynamics, load_memory, load_tokenizer, read_checkpoint
from train.commands import tools
from train.data.encode import tokenizer_hash
from train.data.windows import LatentStore
from train.lab.trial_table import table
from train.report.console import say
from train.report.figures import read_figures
from train.report.machine import count_flops, use_all_cores
from train.stages.configuration import read_yaml


@dataclass
class Candidate:
    """What is tried: a name, why, flags of the stage without their dashes; its own latents with their tokenizer, its
    own geometry; entries of the memory that it plays with, where they are not the geometry's."""

    name: str
    why: str
    overrides: dict[str, Any] = field(default_factory=dict)
    latents: str | None = None
    tokenizer: str | None = None
    geometry: str | None = None
    memory: dict[str, Any] = field(default_factory=dict)


@dataclass
class Protocol:
    """What is the same for all candidates.

    Args:
        config, flags: configuration file of the dynamics and further flags, those of a candidate come after.
        episodes, horizons, prompt, steps: free rollouts of so many held-out seeds, the frames after the prompt that
            are judged, real frames of the prompt, denoiser calls a frame (the objective's own if not given).
        geometry: its checkpoint, for candidates with `model.dynamics.recall` or `warp` that name no other.
        revisit, prompts: mazes of the revisit suite (0 leaves it out) and the lengths of its prompts.
    """

    config: str
    latents: str
    tokenizer: str
    candidates: list[Candidate] = field(default_factory=list)
    minutes: float = 6.0
    flags: dict[str, Any] = field(default_factory=dict)
    episodes: int = 24
    horizons: tuple[int, ...] = (1, 8, 32)
    prompt: int = 32
    steps: int | None = None
    geometry: str | None = None
    revisit: int = 0
    prompts: tuple[int, ...] = (1024,)
    runs: str = "runs"

    def train_for(self, minutes: float | None) -> None:
        """Other minutes than the protocol's have a folder of their own, RUNS/N-minutes, so that what was trained for
        longer stays, and its table too. `UserError` when there are none."""
        if minutes is not None and minutes != self.minutes:
            self.minutes, self.runs = minutes, str(Path(self.runs, f"{minutes:g}-minutes"))
        if not self.minutes > 0:
            raise UserError(f"minutes of training must be more than 0, got {self.minutes:g}")


class Trial:
    """One candidate under a protocol. `UserError` when what it names is missing or does not belong together.

    `stage`: what is trained; `steps`: denoiser calls a frame; `init`: the weights that training begins with; `kept`:
    visits of the revisit suite that have been played (`train/lab/compare.py` has others than these).
    """

    stage, suffix = "dynamics", ".safetensors"

    def __init__(self, protocol: Protocol, candidate: Candidate) -> None:
        self.protocol, self.candidate, self.name = protocol, candidate, candidate.name
        self.steps, self.init = protocol.steps, list[str]()
        self.kept: dict[int, Any] | None = None
        self.folder = Path(protocol.runs, f"trial-{self.name}")
        self.path = self.folder / f"{self.name}{self.suffix}"
        self.result = Path(protocol.runs, "trials", f"{self.name}.json")
        self.tokenizer = candidate.tokenizer or protocol.tokenizer
        self.geometry = candidate.geometry or protocol.geometry
        self.store = LatentStore(candidate.latents or protocol.latents)
        self.key = digest(json.dumps([*self.fixed(), candidate.overrides, self.store.index]).encode())

    def fixed(self) -> list[Any]:
        """What training depends on beside the candidate's flags and the latents."""
        config, protocol = read_yaml(self.protocol.config), self.protocol
        fixed = [{k: config[k] for k in config if k not in ("name", "minutes")}, protocol.flags, protocol.minutes]
        return [*fixed, self.geometry, self.candidate.memory] if self.geometry else fixed

    def train(self, again: bool) -> bool:
        """Train, or continue; True when the playable file or the training checkpoint is there, finished."""
        if self.ready_file(again):
            return True
        wanted = self.wanted()
        wanted |= {"minutes": self.protocol.minutes, "runs": self.protocol.runs, "name": self.folder.name}
        wanted |= {"wandb": "off", **self.protocol.flags, **self.candidate.overrides}
        flags = [x for k, v in wanted.items() for x in (f"--{k}", v if isinstance(v, str) else json.dumps(v))]
        command = [sys.executable, "-m", "train", self.stage, "--config", self.protocol.config, *flags, *self.init]
        return run([*command, "--resume"]) == 0

    def ready_file(self, again: bool) -> bool:
        """Whether the playable file is there; else there is a folder for what leads to it."""
        note = self.folder / "trial.json"
        if self.folder.exists() and not note.exists():
            raise UserError(f"{self.folder} is no trial's: move it away, or rename the candidate")
        if note.exists() and (again or json.loads(note.read_text()) != self.key):
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(note, json.dumps(self.key))
        return self.path.exists()

    def wanted(self) -> dict[str, Any]:
        """Flags that say what is trained on."""
        latents = str(self.store.directory)
        if self.store.index["tokenizer"] != tokenizer_hash(load_tokenizer(self.tokenizer)):
            raise UserError(f"{latents} was not encoded with {self.tokenizer}: name the tokenizer that it was")
        geometry = {"model.geometry": self.geometry} if self.geometry else {}
        return {"data.latents": latents, "model.tokenizer": self.tokenizer, **geometry}

    def export(self, truth: Truth) -> None:
        """The playable file, whose dreams begin with the protocol's own prompts; the training checkpoint goes."""
        last = self.folder / self.stage / "last.ckpt"
        tokenizer, (network, objective) = load_tokenizer(self.tokenizer), load_dynamics(last)
        memory = load_memory(self.geometry if network.config.views else None)
        state, p = read_checkpoint(last), truth.prompt
        calls = self.protocol.steps or state["game_wm"]["settings"]["model"].get("student_steps")
        model = assemble(tokenizer, network, objective, memory, calls, self.candidate.memory if memory.config else None)
        trained = {**state["game_wm"]["trained"], "steps": state["global_step"]}
        contexts = truth.frames[:8, :p], truth.actions[:8, : p - 1]
        save(self.path, Checkpoint(model, self.store.schema, self.store.game, *contexts, trained, self.name, self.path))
        last.unlink()

    def judge(self, truth: Truth, features: FeatureDistance, key: Any, again: bool) -> dict[str, Any] | None:
        """Train and evaluate it, and keep the result under this key; None where it could not be trained."""
        if not self.train(again):
            say(f"{self.name}: training failed")
            return None
        if not self.path.exists():
            self.export(truth)
        result = {"key": key, **self.evaluate(truth, features)}
        write_atomic(self.result, json.dumps(tidy(result), indent=1, ensure_ascii=False))
        return result

    def found(self, key: Any) -> dict[str, Any] | None:
        """The result that is kept under this key."""
        result = json.loads(self.result.read_text()) if self.result.exists() else {}
        return result if result.get("key") == key else None

    def open(self) -> Checkpoint:
        """What is judged, in 32 bits."""
        return load(self.path)

    def accelerate(self, model: WorldModel) -> WorldModel:
        """The model as it is judged."""
        return model

    def evaluate(self, truth: Truth, features: FeatureDistance) -> dict[str, Any]:
        """Figures of the dreams and of the training."""
        checkpoint, score = self.open(), Fidelity(features, self.protocol.horizons)
        model = checkpoint.model
        state = model.start(checkpoint.contexts_frames[:1], checkpoint.contexts_actions[:1], torch.tensor([0]))
        with torch.no_grad(), count_flops() as counter:
            model.step(state, truth.actions[:1, truth.prompt - 1], self.steps)
        parameters = sum(p.numel() for p in model.dynamics.parameters())
        model = self.accelerate(model)
        dream = roll(model, truth, self.steps)
        score.add(model, truth, dream)
        save_picture(self.result.with_suffix(".png"), draw(truth, dream))
        return {
            "candidate": asdict(self.candidate),
            "minutes": self.protocol.minutes,
            "parameters": parameters,
            "gflop_per_frame": counter.get_total_flops() / 1e9,
            "steps": checkpoint.trained.get("steps"),
            **self.logged("samples_per_second", "frames_per_second", "machine_gflops", "flow"),
            "fidelity": score.result(),
            "revisit": self.revisit(model, features),
        }

    def logged(self, *names: str) -> dict[str, float | None]:
        """Medians of what training has logged; None of what it has not. The loss is that of the last fifth."""
        values = {name: [value for _, value in read_figures(self.folder / self.stage, name)] for name in names}
        if "flow" in values:
            values["flow"] = values["flow"][-max(1, len(values["flow"]) // 5) :]
        return {name: statistics.median(found) if found else None for name, found in values.items()}

    def revisit(self, model: WorldModel, features: FeatureDistance) -> dict[str, Any]:
        """The card of the revisit suite, {} where the protocol does not ask for it."""
        if not self.protocol.revisit:
            return {}
        seeds = range(FIRST_SEED, FIRST_SEED + self.protocol.revisit)
        with RealGame(self.store.game) as game:
            return revisit(model, game, features, seeds, self.protocol.prompts, steps=self.steps, kept=self.kept)[0]


def run(command: list[str]) -> int:
    """Exit status of a process of its own, which is told to save and end when this one is."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    child = subprocess.Popen(command)
    try:
        return child.wait()
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
        signal.signal(signal.SIGTERM, before)


def digest(*parts: bytes) -> str:
    """16 hexadecimal digits."""
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def real_play(protocol: Protocol) -> Truth:
    """The held-out episodes; kept under RUNS/trials until a file that they depend on changes."""
    game_id, frames = LatentStore(protocol.latents).game, max(protocol.horizons)
    seeds = range(FIRST_SEED, FIRST_SEED + protocol.episodes)
    files = [
        *sorted(Path(real_game.__file__).parent.glob("*.py")),
        *sorted(Path(data_collect.__path__[0]).rglob("*.py")),
    ]
    asked = repr((game_id, seeds, protocol.prompt, protocol.horizons)).encode()
    path = Path(protocol.runs, "trials", f"truth-{digest(asked, *(file.read_bytes() for file in files))}.pt")
    if not path.exists():
        say(f"playing {protocol.episodes} episodes of {game_id}")
        with RealGame(game_id) as game:
            plays = [game.choose(seed, protocol.prompt, frames, protocol.horizons) for seed in seeds]
        truth = vars(stack(plays, protocol.prompt, frames))
        tensors = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in truth.items()}
        mine = path.with_suffix(f".{os.getpid()}")  # for two protocols may run side by side
        with whole(mine) as file:
            torch.save(tensors, file)
        mine.replace(path)
    found = torch.load(path, weights_only=True)
    return Truth(**found | {name: found[name].numpy() for name in ("rewards", "terminated", "length")})


def judge(protocol: Protocol, only: list[str], again: bool) -> int:
    """All of it; exit status 1 when a candidate could not be trained."""
    truth, folder, results, failed = real_play(protocol), Path(protocol.runs, "trials"), dict[str, Any](), 0
    asked = digest(truth.frames.numpy().tobytes(), truth.actions.numpy().tobytes(), repr(protocol.horizons).encode())
    features = FeatureDistance()
    for trial in [Trial(protocol, candidate) for candidate in protocol.candidates]:
        key, wanted = [trial.key, asked, protocol.steps or 1], trial.name in only
        found = None if wanted and again else trial.found(key)
        if found is None and wanted:
            say(f"{trial.name}: {trial.candidate.why}")
            found = trial.judge(truth, features, key, again)
            failed |= found is None
        if found is not None:
            results[trial.name] = found
            write_atomic(folder / "table.md", table(protocol, results))
    write_atomic(folder / "table.md", table(protocol, results))
    if results:
        sheets = {name: Image.open(folder / f"{name}.png").convert("RGB") for name in results}
        save_picture(folder / "table.png", beside(sheets, len(truth.seeds)))
    say(table(protocol, results))
    return failed


def main(arguments: list[str]) -> int:
    """`python -m train trial`."""
    options = tools.trial().parse_args(arguments)
    reader = ArgumentParser(exit_on_error=False)
    reader.add_class_arguments(Protocol)
    try:
        protocol = Protocol(**vars(reader.instantiate_classes(reader.parse_object(read_yaml(options.protocol)))))
    except ArgumentError as error:
        raise UserError(f"{options.protocol}: {error}") from None
    protocol.train_for(options.minutes)
    names = [candidate.name for candidate in protocol.candidates]
    if wrong := [name for name in [*(options.only or []), *names] if names.count(name) != 1]:
        raise UserError(f"{options.protocol}: no candidate, or more than one, is called {wrong[0]}")
    use_all_cores()
    return judge(protocol, options.only or names, options.again)
