"""The short protocol by which a choice is judged: quality after the same minutes on this machine.

    python -m train trial configs/trials/maze.yaml [--only base muon] [--minutes 6] [--again]

Every candidate trains the dynamics for the same minutes, on the same latents, with the same seeds, in a process of its
own, then dreams the same held-out episodes. What is finished is skipped, so that an interrupted protocol continues
(`--again` after a change of the code). For each candidate: `RUNS/trials/NAME.json`, `NAME.png` (truth above, dream
below) and `RUNS/trial-NAME/NAME.safetensors`, which `play.py` plays; for all, `RUNS/trials/table.md`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
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
import yaml
from jsonargparse import ArgumentError, ArgumentParser

import data_collect
from data_collect.errors import UserError
from data_collect.shards import write_atomic
from game_wm.checkpoint import Checkpoint, load, save
from game_wm.evaluation.card import tidy
from game_wm.evaluation.features import FeatureDistance
from game_wm.evaluation.fidelity import Fidelity
from game_wm.evaluation.rollout import FIRST_SEED, RealGame, Truth, roll, stack
from game_wm.evaluation.sheet import draw
from game_wm.world import WorldConfig, WorldModel
from train.checkpoints import check_card
from train.dynamics import load_dynamics
from train.encode import tokenizer_hash
from train.machine import count_flops, describe, use_all_cores
from train.report import read_figures, say
from train.tokenizer import load_tokenizer
from train.windows import LatentStore

MEASURES = {"psnr": 2, "psnr_seen": 2, "sharpness": 2, "feature_distance": 3}  # and their decimals in the table


@dataclass
class Candidate:
    """What is tried: a name, why, flags of the stage without their dashes; its own latents with their tokenizer."""

    name: str
    why: str
    overrides: dict[str, Any] = field(default_factory=dict)
    latents: str | None = None
    tokenizer: str | None = None


@dataclass
class Protocol:
    """What is the same for all candidates.

    Args:
        config, flags: configuration file of the dynamics and further flags, those of a candidate come after.
        episodes, horizons, prompt, steps: free rollouts of so many held-out seeds, the frames after the prompt that
            are judged, real frames of the prompt, denoiser calls a frame.
    """

    config: str
    latents: str
    tokenizer: str
    candidates: list[Candidate]
    minutes: float = 6.0
    flags: dict[str, Any] = field(default_factory=dict)
    episodes: int = 24
    horizons: tuple[int, ...] = (1, 8, 32)
    prompt: int = 32
    steps: int = 1
    runs: str = "runs"


class Trial:
    """One candidate under a protocol: trains it and keeps the playable file."""

    def __init__(self, protocol: Protocol, candidate: Candidate) -> None:
        self.protocol, self.candidate, self.name = protocol, candidate, candidate.name
        self.folder = Path(protocol.runs, f"trial-{self.name}")
        self.path = self.folder / f"{self.name}.safetensors"
        self.result = Path(protocol.runs, "trials", f"{self.name}.json")
        self.latents, self.tokenizer = candidate.latents or protocol.latents, candidate.tokenizer or protocol.tokenizer
        try:
            content = yaml.safe_load(Path(protocol.config).read_text())
        except (OSError, yaml.YAMLError) as error:
            raise UserError(f"{protocol.config} is no configuration file: {error}") from None
        fixed = {k: v for k, v in content.items() if k not in ("name", "minutes")}
        index = (LatentStore(self.latents).directory / "index.json").read_bytes()
        self.key = digest(json.dumps([fixed, protocol.flags, candidate.overrides, protocol.minutes]).encode(), index)

    def train(self, again: bool) -> bool:
        """The playable file is there and of this candidate; False when its training failed."""
        note = self.folder / "trial.json"
        if self.folder.exists() and not note.exists():
            raise UserError(f"{self.folder} is no trial's: move it away, or rename the candidate")
        if note.exists() and (again or json.loads(note.read_text()) != self.key):
            shutil.rmtree(self.folder)
        if self.path.exists():
            return True
        if LatentStore(self.latents).index["tokenizer"] != tokenizer_hash(load_tokenizer(self.tokenizer)):
            raise UserError(f"{self.latents} was not encoded with {self.tokenizer}: name the tokenizer that it was")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(note, json.dumps(self.key))
        wanted = {"data.latents": self.latents, "model.tokenizer": self.tokenizer, **self.protocol.flags}
        wanted |= {**self.candidate.overrides, "minutes": self.protocol.minutes, "runs": self.protocol.runs}
        flags = [x for k, v in wanted.items() for x in (f"--{k}", v if isinstance(v, str) else json.dumps(v))]
        command = [sys.executable, "-m", "train", "dynamics", "--config", self.protocol.config, *flags]
        if status := run([*command, "--name", self.folder.name, "--wandb", "off", "--resume"]):
            say(f"{self.name}: training failed (exit status {status})")
            return False
        return True

    def export(self, truth: Truth) -> None:
        """The playable file, whose dreams begin with the protocol's own prompts; the training checkpoint goes."""
        last = self.folder / "dynamics" / "last.ckpt"
        tokenizer, (network, objective) = load_tokenizer(self.tokenizer), load_dynamics(last)
        model = WorldModel(WorldConfig(tokenizer.config, network.config, objective, self.protocol.steps))
        model.tokenizer.load_state_dict(tokenizer.state_dict())
        model.dynamics.load_state_dict(network.state_dict())
        store, state, p = LatentStore(self.latents), check_card(last), truth.prompt
        trained = {**state["game_wm"]["trained"], "steps": state["global_step"]}
        contexts = truth.frames[:8, :p], truth.actions[:8, : p - 1]
        save(self.path, Checkpoint(model, store.schema, store.game, *contexts, trained, self.name, self.path))
        last.unlink()

    def evaluate(self, truth: Truth, features: FeatureDistance) -> dict[str, Any]:
        """Figures of the dreams and of the training."""
        checkpoint = load(self.path)
        dream, score = roll(checkpoint.model, truth), Fidelity(features, self.protocol.horizons)
        score.add(checkpoint.model, truth, dream)
        draw(truth, dream).save(self.result.with_suffix(".png"))
        one = checkpoint.model.start(
            checkpoint.contexts_frames[:1], checkpoint.contexts_actions[:1], torch.zeros(1).long()
        )
        with torch.no_grad(), count_flops() as counter:
            checkpoint.model.step(one, truth.actions[:1, truth.prompt - 1])
        losses = [v for _, v in read_figures(self.folder / "dynamics", "flow")]
        rates = {
            n: [v for _, v in read_figures(self.folder / "dynamics", n)]
            for n in ("samples_per_second", "machine_gflops")
        }
        return {
            "parameters": sum(p.numel() for p in checkpoint.model.dynamics.parameters()),
            "gflop_per_frame": counter.get_total_flops() / 1e9,
            "steps": checkpoint.trained["steps"],
            **{name: statistics.median(values) if values else None for name, values in rates.items()},
            "flow": statistics.mean(losses[-max(1, len(losses) // 5) :]) if losses else None,
            "fidelity": score.result(),
        }


def run(command: list[str]) -> int:
    """Exit status of a process of its own, which is stopped, and may save, when this one is."""
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
    """The held-out episodes; kept under RUNS/trials until any file of `data_collect` changes."""
    game_id, frames = LatentStore(protocol.latents).game, max(protocol.horizons)
    seeds = range(FIRST_SEED, FIRST_SEED + protocol.episodes)
    sources = sorted(Path(data_collect.__path__[0]).rglob("*.py"))
    asked = repr((game_id, seeds, protocol.prompt, protocol.horizons)).encode()
    path = Path(protocol.runs, "trials", f"truth-{digest(asked, *(file.read_bytes() for file in sources))}.npz")
    if not path.exists():
        say(f"playing {protocol.episodes} episodes of {game_id}")
        with RealGame(game_id) as game:
            plays = [game.choose(seed, protocol.prompt, frames, protocol.horizons) for seed in seeds]
        truth = stack(plays, protocol.prompt, frames)
        path.parent.mkdir(parents=True, exist_ok=True)
        seen = {f"seen{horizon}": mask.numpy() for horizon, mask in truth.seen.items()}
        arrays = {k: np.asarray(v) for k, v in vars(truth).items() if k != "seen"}
        with open(path.with_suffix(".tmp"), "wb") as file:
            np.savez(file, **arrays, **seen)  # type: ignore[arg-type]
        path.with_suffix(".tmp").replace(path)
    with np.load(path) as found:
        tensors = [torch.from_numpy(found[name]) for name in ("frames", "actions")]
        plain = [found[name] for name in ("rewards", "terminated", "length")]
        masks = {
            int(name[4:]): torch.from_numpy(found[name])
            for name in found.files
            if name.startswith("seen") and name != "seeds"
        }
        return Truth(tuple(found["seeds"].tolist()), int(found["prompt"]), *tensors, *plain, masks)  # type: ignore[arg-type]


def table(protocol: Protocol, results: dict[str, dict[str, Any]]) -> str:
    """Markdown, one row a candidate; above them what needs no dynamics: each tokenizer's ceiling, the last frame."""

    def cells(fidelity: dict[str, Any], prefix: str = "") -> list[str]:
        row = []
        for name, decimals in MEASURES.items():
            value = fidelity.get(prefix + name, {})
            value = value if isinstance(value, dict) else {str(h): value for h in protocol.horizons}
            row.append(
                " / ".join(f"{value[str(h)]:.{decimals}f}" if str(h) in value else "–" for h in protocol.horizons)
            )
        return row

    frames = " / ".join(map(str, protocol.horizons))
    head = ["candidate", "why", "M parameters", "GFLOP a frame", "steps", "samples/s", "machine GFLOP/s", "flow loss"]
    head += [f"{name.replace('_', ' ')} {frames}" for name in MEASURES]
    rows, ceilings = [head, ["---"] * len(head)], dict[str, list[str]]()
    for candidate in protocol.candidates:
        if found := results.get(candidate.name):
            tokenizer = candidate.tokenizer or protocol.tokenizer
            ceilings.setdefault(tokenizer, cells(found["fidelity"], "ceiling_"))
            if len(rows) == 2:
                rows.append(["*repeat the last frame*", *[""] * 7, *cells(found["fidelity"], "repeat_")])
            sizes = [f"{found['parameters'] / 1e6:.2f}", f"{found['gflop_per_frame']:.2f}", f"{found['steps']}"]
            speeds = [(found["samples_per_second"], 1), (found["machine_gflops"], 0), (found["flow"], 4)]
            sizes += ["–" if value is None else f"{value:.{digits}f}" for value, digits in speeds]
            rows.append([candidate.name, candidate.why, *sizes, *cells(found["fidelity"])])
        else:
            rows.append([candidate.name, f"{candidate.why} (not run)", *["–"] * (len(head) - 2)])
    rows[2:2] = [[f"*ceiling of {name}*", *[""] * 7, *row] for name, row in ceilings.items()]
    last = FIRST_SEED + protocol.episodes - 1
    text = f"{protocol.minutes:g} minutes each on {describe(torch.device('cpu'))}, latents {protocol.latents}, "
    text += f"{protocol.episodes} episodes (seeds {FIRST_SEED}-{last}), {protocol.steps} denoiser call(s) a frame.\n\n"
    return text + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main(arguments: list[str]) -> int:
    """`python -m train trial`; exit status 1 when a candidate could not be trained."""
    parser = argparse.ArgumentParser(
        "python -m train trial", description="Judge candidates by the same short training."
    )
    parser.add_argument("protocol", help="configuration file (YAML)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these candidates")
    parser.add_argument("--minutes", type=float, help="of training for each (default: the protocol's)")
    parser.add_argument("--again", action="store_true", help="run them anew, even where they are finished")
    options = parser.parse_args(arguments)
    reader = ArgumentParser(exit_on_error=False)
    reader.add_class_arguments(Protocol)
    try:
        protocol = Protocol(**vars(reader.instantiate_classes(reader.parse_path(options.protocol))))
    except (ArgumentError, TypeError, OSError) as error:
        raise UserError(f"{options.protocol}: {error}") from None
    protocol.minutes = options.minutes or protocol.minutes
    names = [candidate.name for candidate in protocol.candidates]
    if wrong := [name for name in [*(options.only or []), *names] if names.count(name) != 1]:
        raise UserError(f"{options.protocol}: no candidate, or more than one, is called {wrong[0]}")
    use_all_cores()
    truth, features = real_play(protocol), None
    asked = digest(
        truth.frames.numpy().tobytes(),
        truth.actions.numpy().tobytes(),
        repr((protocol.horizons, protocol.steps)).encode(),
    )
    results, failed = dict[str, dict[str, Any]](), False
    for candidate in protocol.candidates:
        trial = Trial(protocol, candidate)
        key, wanted = [trial.key, asked], candidate.name in (options.only or names)
        found = json.loads(trial.result.read_text()) if trial.result.exists() else {}
        if found.get("key") == key and not (wanted and options.again):
            results[trial.name] = found
            continue
        if not wanted:
            continue
        say(f"{trial.name}: {candidate.why}")
        if not trial.train(options.again):
            failed = True
            continue
        if not trial.path.exists():
            trial.export(truth)
        features = features or FeatureDistance()
        results[trial.name] = {
            "key": key,
            "candidate": asdict(candidate),
            "minutes": protocol.minutes,
            **trial.evaluate(truth, features),
        }
        write_atomic(trial.result, json.dumps(tidy(results[trial.name]), indent=1, ensure_ascii=False))
        write_atomic(Path(protocol.runs, "trials", "table.md"), table(protocol, results))
    text = table(protocol, results)
    write_atomic(Path(protocol.runs, "trials", "table.md"), text)
    say(text)
    return 1 if failed else 0
