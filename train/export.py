"""A finished run as one playable file, and a first look at how good it is.

    python -m train export --run runs/maze --name maze --out checkpoints
    python -m train export --run runs/masked --tokenizer runs/codes/tokenizer/last.ckpt --latents runs/codes/latents
    python -m train export --run runs/maze --base checkpoints/maze.safetensors --share 0.3 --out checkpoints
    python -m train export --run runs/doom --beginnings data/doom/beginnings-* --prompt 500 --contexts 3

Writes `NAME.safetensors` (the student of distillation, or the dynamics where nothing was distilled) and, beside a
student, `NAME-teacher.safetensors`. Dreams begin from real frames of held-out episodes, or at the ends of recordings'
(`--beginnings`); what a long prompt has shown, a model with long memory knows. The last lines say how well the
next frame of such episodes is predicted, beside repeating the last one (`diagnosis.py`).

Legend: S contexts, P frames of one, H, W pixels, A encoded action.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_collect.dataset import Dataset, Episode
from data_collect.errors import UserError
from game_wm.checkpoint import Checkpoint, load, save
from game_wm.pictures import RAW_BYTES, pack_contexts
from game_wm.world import WorldConfig, WorldModel
from train import commands
from train.checkpoints import load_dynamics, load_geometry, load_tokenizer, read_checkpoint
from train.data.encode import tokenizer_hash
from train.data.frames import FrameSource, PooledFrames, recordings_of
from train.data.windows import LatentStore, Span
from train.diagnosis import PROMPT, Figures, HeldOut, measure, told
from train.stages.machine import describe
from train.stages.report import check_name, say

HELD_OUT = 0.04  # share of the episodes, where no stage of the run says it
JUDGED = 64  # held-out frames that the next frame is judged by


def contexts(store: LatentStore, count: int, frames: int, held_out: float) -> tuple[Tensor, Tensor, Tensor | None]:
    """Real frames uint8 (S, P, H, W, 3) of held-out episodes, evenly spread, the actions (S, P, A) done on them, and
    their poses (S, P, 3), if they were recorded.

    P is `frames`, or as many as the longest held-out episode has. `UserError` when the recording has gone.
    """
    source: FrameSource = PooledFrames(recordings_of(store), 0, held_out, 1)
    frames = min(frames, max((span.frames for span in source.held_out), default=0))
    if frames < 2:
        raise UserError(f"{store.directory} has no held-out frames to begin a dream with: record more episodes")
    spans = [span for span in source.held_out if span.frames >= frames]
    starts = np.concatenate([[0], np.cumsum([span.frames - frames + 1 for span in spans])])
    chosen = np.linspace(0, starts[-1] - 1, min(count, int(starts[-1]))).astype(np.int64)
    pictures, actions, poses = [], [], []
    for number in chosen:
        row = int(np.searchsorted(starts, number, side="right")) - 1
        place = Span(spans[row].episode, spans[row].start + int(number - starts[row]), frames)
        pictures.append(source.read(source.rows([place])))
        actions.append(store.read("actions", place))
        poses += [store.read("pose", place)] if store.index["pose"] else []
    return (
        torch.from_numpy(np.stack(pictures)),
        torch.from_numpy(np.stack(actions)),
        torch.from_numpy(np.stack(poses)) if poses else None,
    )


def beginnings(
    folders: Sequence[Path], store: LatentStore, count: int, frames: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The same from the ends of recordings' episodes, the first of those that are long enough. `UserError` when one is
    of another game than the store, or has none."""
    found = list[Episode]()
    for folder in folders:
        dataset = Dataset(folder)
        if (dataset.game, dataset.schema) != (store.game, store.schema):
            raise UserError(f"{folder} is a recording of {dataset.game}, not of {store.game}, which was learnt")
        long = [each for each in dataset.episodes() if len(each.frames) >= frames]
        if not long:
            raise UserError(
                f"{folder} has no episode of {frames} frames, which a dream begins with: record longer ones"
            )
        found += long
    found = found[:count]
    last = slice(-frames, None)
    pictures, actions = ([getattr(each, name)[last] for each in found] for name in ("frames", "encoded"))
    actions = [np.concatenate((each, each[-1:]))[last] for each in actions]  # nothing is done on the last frame
    poses = [each.pose[last] for each in found if each.pose is not None]
    return (
        torch.from_numpy(np.stack(pictures)),
        torch.from_numpy(np.stack(actions)),
        torch.from_numpy(np.stack(poses)) if len(poses) == len(found) else None,
    )


def export(
    run: Path,
    name: str,
    out: Path,
    count: int = 8,
    prompt: int = 32,
    tokenizer_at: Path | None = None,
    latents: Path | None = None,
    base: Path | None = None,
    share: float = 1.0,
    begin_with: Sequence[Path] = (),
) -> tuple[Path, Figures | None]:
    """Write the playable checkpoint(s) of a run; returns the path of the one that ships, and how good its next frame
    is, if the recording is still there to tell. Raises `UserError`.

    `tokenizer_at`, `latents`: where they are not the run's own. `begin_with`: recordings for the beginnings of dreams.
    `base`: the playable checkpoint that the run began with: it gives the stages that the run has not, the beginnings of
    dreams, and 1 - `share` of the weights of dynamics (averaged weights of one descent are often better than either
    end: Wortsman et al., 2022, model soups); above 1, it goes on past the run, as task arithmetic does (Ilharco et al.,
    2023).
    """
    if not 0 < share <= 2 or (share != 1 and base is None):
        raise UserError(f"--share {share} must lie above 0, at most 2, and other than 1 needs a --base to average with")
    began = load(base) if base else None

    def at(stage: str) -> Path:
        path = run / stage / "last.ckpt"
        return base if base and not path.exists() else path

    tokenizer_at = tokenizer_at or at("tokenizer")
    tokenizer, store = load_tokenizer(tokenizer_at), LatentStore(latents or run / "latents")
    if store.index["tokenizer"] != tokenizer_hash(tokenizer):
        raise UserError(f"{store.directory} was not encoded with {tokenizer_at}: name the tokenizer that it was")
    distilled = (run / "distill" / "last.ckpt").exists()
    new_dynamics = distilled or at("dynamics") != base  # or new geometry alone
    settings = {}
    if new_dynamics:
        settings = read_checkpoint(run / ("distill" if distilled else "dynamics") / "last.ckpt")["game_wm"]["settings"]
    elif share != 1:
        raise UserError(f"{run} has no dynamics to average with those of {base}: leave --share out")
    if began is not None:
        frames, actions, poses = began.contexts_frames, began.contexts_actions, began.contexts_poses
    if began is None or begin_with:
        if begin_with:
            frames, actions, poses = beginnings(begin_with, store, count, prompt)
        else:
            frames, actions, poses = contexts(store, count, prompt, settings["data"]["held_out"])
        actions = actions[:, :-1]
        while len(frames) > 1 and pack_contexts(frames)["contexts.frames"].nbytes > RAW_BYTES:
            frames, actions, poses = frames[:-1], actions[:-1], None if poses is None else poses[:-1]

    def build(stage: str, file: str, steps: int | None, stages: list[str]) -> Checkpoint:
        if began is not None and not new_dynamics:
            network, objective = began.model.dynamics, began.model.config.objective
        else:
            network, objective = load_dynamics(run / stage / "last.ckpt")
        sizes = network.config
        if ((sizes.channels, sizes.height, sizes.width), sizes.actions) != (store.latent_shape, store.schema.size):
            raise UserError(f"{run} was not trained on {store.directory}: name what it was trained on with --latents")
        geometry = load_geometry(at("geometry")) if sizes.views else None
        memory = geometry.config if geometry else None
        steps = steps or objective.calls(sizes.height * sizes.width)
        model = WorldModel(WorldConfig(tokenizer.config, sizes, objective, steps, memory))
        model.tokenizer.load_state_dict(tokenizer.state_dict())
        if model.geometry is not None and geometry is not None:
            model.geometry.load_state_dict(geometry.state_dict())
        weights = network.state_dict()
        if began is not None and share != 1:
            before = began.model.dynamics.state_dict()
            if {k: w.shape for k, w in before.items()} != {k: w.shape for k, w in weights.items()}:
                raise UserError(f"{base} has a network of other sizes than {run}: leave --share out")
            weights = {k: torch.lerp(before[k], w, share) for k, w in weights.items()}
        model.dynamics.load_state_dict(weights)
        files = {tokenizer_at, *(at(s) for s in stages + ["geometry"] * bool(geometry))}
        # Dynamics that began with the base counts what is behind that itself.
        trained = _trained(files - {base} if at("dynamics") != base else files)
        model.eval().requires_grad_(False)
        path = out / f"{file}.safetensors"
        return Checkpoint(model, store.schema, store.game, frames, actions, trained, file, path, poses)

    teacher = None
    if not distilled:
        made = build("dynamics", name, None if new_dynamics or began is None else began.model.steps, ["dynamics"])
    else:
        if at("dynamics") != base:  # what a run began with has a file of its own
            teacher = build("dynamics", f"{name}-teacher", settings["model"]["teacher_steps"], ["dynamics"])
        made = build("distill", name, settings["model"]["student_steps"], ["dynamics", "distill"])
    figures = None
    try:
        held_out = held_out_frames(store, made.model, settings.get("data", {}).get("held_out", HELD_OUT))
        figures = measure(made.model, held_out, teacher.model if teacher else None)
    except UserError as error:
        say(f"how good the next frame is cannot be told: {error}")
    for checkpoint, kind in [(teacher, "teacher"), (made, "next_frame")]:
        if checkpoint is not None and checkpoint.path is not None:
            checkpoint.measured = figures.of(kind) if figures else None
            save(checkpoint.path, checkpoint)
    return out / f"{name}.safetensors", figures


def _trained(checkpoints: set[Path]) -> dict[str, Any]:
    """For the card: frames that the dynamics read in training, hours of all stages, the machine."""
    frames, hours = 0, 0.0
    for path in checkpoints:
        if path.suffix == ".safetensors":
            stage, trained = "dynamics", load(path).trained
        else:
            stage, trained = (read_checkpoint(path)["game_wm"][entry] for entry in ("stage", "trained"))
        hours += trained["hours"]
        frames += trained["frames"] if stage in ("dynamics", "distill") else 0
    return {"frames": frames, "hours": round(hours, 3), "machine": describe(torch.device("cpu"))}


def held_out_frames(store: LatentStore, model: WorldModel, held_out: float) -> HeldOut:
    """What the next frame is judged on. `UserError` when the recording has gone."""
    longest = max((span.frames for span in store.split(held_out, validation=True)), default=0)
    prompt = min(PROMPT, model.window, max(1, longest // 2))  # short episodes have more than one frame to be judged
    return HeldOut(*contexts(store, JUDGED, prompt + 1, held_out))


def main(arguments: list[str]) -> int:
    """`python -m train export`."""
    options = commands.export().parse_args(arguments)
    latents, name = options.latents or options.run / "latents", options.name or options.run.resolve().name
    check_name(name)
    counts = options.contexts, options.prompt
    places = options.tokenizer, latents, options.base
    path, figures = export(options.run, name, options.out, *counts, *places, options.share, options.beginnings or ())
    say(f"wrote {path}, {path.stat().st_size / 2**20:.1f} MiB")
    for line in told(figures) if figures else ():
        say(line)
    return 0
