"""A finished run as one playable file, and a first look at how good it is.

    python -m train export --run runs/maze --name maze --out checkpoints
    python -m train export --run runs/masked --tokenizer runs/codes/tokenizer/last.ckpt --latents runs/codes/latents
    python -m train export --run runs/maze --base checkpoints/maze.safetensors --share 0.3 --out checkpoints
    python -m train export --run runs/doom --beginnings data/doom/beginnings-* --prompt 500 --contexts 3

Writes `NAME.safetensors` (the student of distillation, or the dynamics where nothing was distilled) and, beside a
student, `NAME-teacher.safetensors`. Seed contexts are real frames of held-out episodes, or the ends of the episodes of
recordings (`--beginnings`); what a long prompt shows is remembered by a model with long memory. The last lines say how
well the next frame of held-out episodes is predicted, beside repeating the last one (`diagnosis.py`). A run on many
games becomes a base: a beginning for training, which cannot be played.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from data_collect.errors import UserError
from data_collect.schema import ActionSchema
from data_collect.shards.writer import write_atomic
from game_wm.checkpoint import Checkpoint, load, save
from game_wm.model.dynamics import Dynamics
from game_wm.objectives import Objective
from game_wm.world import WorldModel
from train.assemble import HELD_OUT, SeedContexts, assemble, final_contexts, held_out_contexts, within_file
from train.checkpoints import load_dynamics, load_memory, load_tokenizer, read_checkpoint
from train.commands import tools
from train.data.corpus import CORPUS
from train.data.encode import tokenizer_hash
from train.data.latents import LatentStore
from train.diagnosis import FRAMES_BEFORE, Diagnosis, measure, summary
from train.report.console import say
from train.report.figures import last_figures
from train.report.machine import describe
from train.stages.configuration import check_name
from train.transfer import transferred

JUDGED = 64  # held-out frames that the next frame is judged by


@dataclass
class Source:
    """The parts of a model: the stages of a run, and a base's for those that the run has not.

    Raises `UserError` where they do not belong together.

    Args:
        tokenizer_at, latents, geometry_at: where they are not the run's own.
        base: the playable checkpoint that the run began with. It gives the stages that the run has not, the seed
            contexts, and 1 - `share` of the weights of the dynamics.
        share: averaged weights of one descent are often better than either end (Wortsman et al., 2022, model soups);
            a share above 1 goes on past the run, as task arithmetic does (Ilharco et al., 2023).
    """

    run: Path
    tokenizer_at: Path | None = None
    latents: Path | None = None
    base: Path | None = None
    share: float = 1.0
    geometry_at: Path | None = None

    def __post_init__(self) -> None:
        run, base, share = self.run, self.base, self.share
        if not 0 < share <= 2 or (share != 1 and base is None):
            raise UserError(
                f"--share {share} must lie above 0, at most 2, and other than 1 needs a --base to average with"
            )
        self.playable = load(base) if base else None
        tokenizer_at, latents = self.at("tokenizer"), self.latents or run / "latents"
        self.tokenizer, self.store = load_tokenizer(tokenizer_at), LatentStore(latents)
        if self.store.index["tokenizer"] != tokenizer_hash(self.tokenizer):
            raise UserError(
                f"{self.store.directory} was not encoded with {tokenizer_at}: name the tokenizer that it was"
            )
        self.own_dynamics = self.at("dynamics") != base
        self.distilled = (run / "distill" / "last.ckpt").exists()
        if not self.trained and share != 1:
            raise UserError(f"{run} has no dynamics to average with those of {base}: leave --share out")

    def at(self, stage: str) -> Path:
        """The checkpoint that a stage's weights are in."""
        given = {"tokenizer": self.tokenizer_at, "geometry": self.geometry_at}.get(stage)
        scrolls = stage == "geometry" and (self.run / "scroll").exists()  # a model has one memory
        path = self.run / ("scroll" if scrolls else stage) / "last.ckpt"
        return given or (self.base if self.base and not path.exists() else path)

    @property
    def trained(self) -> bool:
        """Whether the run trained the dynamics that plays, and not the geometry alone."""
        return self.distilled or self.own_dynamics

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Those of the stage that plays, {} where it is the base's."""
        path = self.run / ("distill" if self.distilled else "dynamics") / "last.ckpt"
        return read_checkpoint(path)["game_wm"]["settings"] if self.trained else {}

    def dynamics(self, stage: str) -> tuple[Dynamics, Objective]:
        """Network and objective; the network's weights averaged with the base's."""
        if self.playable is not None and not self.trained:
            return self.playable.model.dynamics, self.playable.model.config.objective
        network, objective = load_dynamics(self.run / stage / "last.ckpt")
        if self.playable is not None and self.share != 1:
            before, weights = self.playable.model.dynamics.state_dict(), network.state_dict()
            if {k: w.shape for k, w in before.items()} != {k: w.shape for k, w in weights.items()}:
                raise UserError(f"{self.base} has a network of other sizes than {self.run}: leave --share out")
            network.load_state_dict({k: torch.lerp(before[k], w, self.share) for k, w in weights.items()})
        return network, objective

    def seeds(self, count: int, prompt: int, recordings: Sequence[Path]) -> SeedContexts:
        """Seed contexts for the file: the ends of `recordings`, else those of the base, else held-out frames."""
        if recordings:
            found = final_contexts(recordings, self.store, count, prompt)
        elif self.playable is not None:
            base = self.playable
            return SeedContexts(base.contexts_frames, base.contexts_actions, base.contexts_poses)
        else:
            found = held_out_contexts(self.store, count, prompt, self.settings["data"]["held_out"])
        return within_file(found._replace(actions=found.actions[:, :-1]))

    def checkpoint(self, stage: str, path: Path, seeds: SeedContexts, steps: int | None) -> Checkpoint:
        """What plays with the weights of a stage, `dynamics` or `distill`."""
        network, objective = self.dynamics(stage)
        sizes, store = network.config, self.store
        if ((sizes.channels, sizes.height, sizes.width), sizes.actions) != (store.latent_shape, store.schema.size):
            raise UserError(
                f"{self.run} was not trained on {store.directory}: name what it was trained on with --latents"
            )
        memory = load_memory(self.at("geometry") if sizes.views else None)
        model = assemble(self.tokenizer, network, objective, memory, steps)
        files = {self.at(each) for each in ("tokenizer", "dynamics", stage, *(["geometry"] if sizes.views else []))}
        # Dynamics that began with the base counts what is behind that itself.
        trained = behind(files - {self.base} if self.own_dynamics else files)
        return Checkpoint(
            model, store.schema, store.game, seeds.frames, seeds.actions, trained, path.stem, path, seeds.poses
        )


def export(
    source: Source, name: str, out: Path, count: int, prompt: int, recordings: Sequence[Path] = ()
) -> tuple[Path, Diagnosis | None]:
    """Write the playable checkpoint(s) of a run, with `count` seed contexts of `prompt` frames; see `Source.seeds`.

    Returns the path of the one that ships, and how good its next frame is, if the recording is still there to tell.
    Raises `UserError`.
    """
    if source.store.game == CORPUS:
        return export_base(source, out / f"{name}.safetensors"), None
    seeds = source.seeds(count, prompt, recordings)
    path, teacher, settings = out / f"{name}.safetensors", None, source.settings
    if source.distilled:
        if source.own_dynamics:  # what a run began with has a file of its own
            teacher_at, calls = out / f"{name}-teacher.safetensors", settings["model"]["teacher_steps"]
            teacher = source.checkpoint("dynamics", teacher_at, seeds, calls)
        made = source.checkpoint("distill", path, seeds, settings["model"]["student_steps"])
    else:
        began_with = None if source.trained or source.playable is None else source.playable.model.steps
        made = source.checkpoint("dynamics", path, seeds, began_with)
    figures = None
    try:
        held_out = judged_frames(source.store, made.model, settings.get("data", {}).get("held_out", HELD_OUT))
        figures = measure(made.model, held_out, teacher.model if teacher else None)
    except UserError as error:
        say(f"how good the next frame is cannot be told: {error}")
    for checkpoint, kind in [(teacher, "teacher"), (made, "next_frame")]:
        if checkpoint is not None and checkpoint.path is not None:
            checkpoint.measured = figures.of(kind) if figures else None
            save(checkpoint.path, checkpoint)
    return path, figures


def export_base(source: Source, path: Path) -> Path:
    """Write what training on other games begins with: no seed contexts, and nothing of what reads their actions. Beside
    it a card, with the last figures of its stages on held-out episodes."""
    network, objective = source.dynamics("dynamics")
    schema = ActionSchema("multibinary", ("(any)",))
    torch.manual_seed(0)  # what reads that action is as it was made, and the file the same each time
    dynamics = Dynamics(replace(network.config, actions=schema.size))
    weights, _ = transferred(network.state_dict(), network.config, dynamics, same_actions=False)
    dynamics.load_state_dict(weights)
    model = assemble(source.tokenizer, dynamics, objective, load_memory(None), None)
    games = dict.fromkeys(map(source.store.game_of, range(len(source.store.episodes))))
    trained = behind({source.at("tokenizer"), source.at("dynamics")}) | {"games": list(games)}
    frames = torch.empty(0, 1, model.height, model.width, 3, dtype=torch.uint8)
    save(path, Checkpoint(model, schema, CORPUS, frames, torch.empty(0, 0, schema.size), trained, path.stem, path))
    held_out = {stage: last_figures(source.at(stage).parent, "val_") for stage in ("tokenizer", "dynamics")}
    about = {"checkpoint": path.stem, "game": CORPUS, "parameters": sum(p.numel() for p in model.parameters())}
    write_atomic(path.with_suffix(".json"), json.dumps(about | {"trained": trained, "held_out": held_out}, indent=1))
    return path


def behind(checkpoints: set[Path]) -> dict[str, Any]:
    """For the model card: frames that the dynamics read in training, hours of all stages, the machine, and of each
    stage what made it and its whole configuration."""
    frames, hours, stages = 0, 0.0, dict[str, Any]()
    for path in sorted(checkpoints):
        if path.suffix == ".safetensors":
            stage, trained = "dynamics", load(path).trained
            stages = trained.get("stages", {}) | stages
        else:
            found = read_checkpoint(path)["game_wm"]
            stage, trained = found["stage"], found["trained"]
            stages[path.parent.name] = {"made": found.get("made", []), "settings": found["settings"]}
        hours += trained["hours"]
        frames += trained["frames"] if stage in ("dynamics", "distill") else 0
    about = {"frames": frames, "hours": round(hours, 3), "machine": describe(torch.device("cpu"))}
    return {**about, "stages": stages}


def judged_frames(store: LatentStore, model: WorldModel, held_out: float) -> SeedContexts:
    """What the next frame is judged on. `UserError` when the recording has gone."""
    longest = max((span.frames for span in store.split(held_out, validation=True)), default=0)
    before = min(FRAMES_BEFORE, model.window, max(1, longest // 2))  # of short episodes, more than one frame is judged
    return held_out_contexts(store, JUDGED, before + 1, held_out)


def main(arguments: list[str]) -> int:
    options = tools.export().parse_args(arguments)
    name = options.name or options.run.resolve().name
    check_name(name)
    source = Source(options.run, options.tokenizer, options.latents, options.base, options.share)
    path, figures = export(source, name, options.out, options.contexts, options.prompt, options.beginnings or ())
    say(f"wrote {path}, {path.stat().st_size / 2**20:.1f} MiB")
    for line in summary(figures) if figures else ():
        say(line)
    return 0
