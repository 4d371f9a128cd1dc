"""Golden values: what the shipped checkpoints dream, and the first losses of every training stage.

    python tests/golden.py play checkpoints/maze.safetensors 200     # hashes, and the first pictures
    python tests/golden.py train FOLDER                          # losses of each stage on a tiny recording
    python tests/golden.py write                                 # tests/golden.json anew, when a change is meant

Everything is eager, on one thread, in 32 bits and with the instructions that every x86-64 of the last ten years has,
so that a value depends on PyTorch's release alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).with_suffix(".json")
PLAYED = {"maze": 200, "doom": 200, "maze-window": 200, "maze-teacher": 50}  # frames; the teacher calls four times
MARKS = (1, 10, 50, 200)  # frames after which the hash is told, so that a change shows when it begins
PICTURED = 8  # first frames of which small pictures are kept, for other releases of PyTorch
SIDE = 16  # pixels of such a picture
LOSSES = 20
PINNED = {
    "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2", "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1", "WANDB_MODE": "disabled",
}  # fmt: skip


def run(*arguments: str) -> Any:
    """What this script prints as JSON, in a process with pinned arithmetic."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | PINNED | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def shipped(name: str) -> Path:
    """The file of a checkpoint, those that are only compared with in a folder of their own."""
    path = Path("checkpoints") / f"{name}.safetensors"
    return path if path.is_file() else path.parent / "reference" / path.name


def release() -> dict[str, str]:
    """What the values depend on."""
    import torch

    return {"torch": torch.__version__.split("+")[0], "machine": platform.machine()}


def play(path: Path, frames: int) -> dict[str, Any]:
    """Frames under actions that are held for a while, from the first seed context."""
    import numpy as np
    import torch
    from PIL import Image

    from game_wm.checkpoint import load
    from game_wm.play.session import Session

    torch.set_num_threads(1)
    session = Session(load(path, "cpu"), seed=0, context=0, fps=0, rewind=0)
    random, keys = np.random.default_rng(0), sorted(session.schema.keys)
    digest, hashes, pictures = hashlib.sha256(), {}, []
    held: set[str] = set()
    for number in range(1, frames + 1):
        if random.random() < 0.15:
            held = {key for key in keys if random.random() < 0.3}
        session.step(session.schema.from_keys(sorted(held)))
        digest.update(np.ascontiguousarray(session.now.picture).tobytes())
        if number in MARKS:
            hashes[str(number)] = digest.hexdigest()[:16]
        if number <= PICTURED:
            small = Image.fromarray(session.now.picture).resize((SIDE, SIDE), Image.Resampling.BOX)
            pictures.append(np.asarray(small).tobytes().hex())
    return {"hashes": hashes, "pictures": pictures}


def train(folder: Path) -> dict[str, list[float]]:
    """Losses of the first steps of each stage, by a tiny network on a tiny recording of the maze."""
    from data_collect.recording.record import record
    from train.checkpoints import load_memory, load_tokenizer
    from train.data.encode import encode
    from train.first_person.draw_views import draw_views
    from train.report.figures import read_figures
    from train.stages.cli import run_stage

    record(folder / "data", "maze?size=7", "random", 360, seed=3, episode_frames=60)
    runs, config = str(folder / "runs"), ROOT / "configs" / "maze"
    common = ["--name", "golden", "--runs", runs, "--wandb", "off", "--minutes", "null", "--steps", str(LOSSES),
              "--warmup", "3", "--trainer.log_every_n_steps", "1", "--trainer.precision", "32-true",
              "--trainer.val_check_interval", "1000", "--data.game", "null"]  # fmt: skip
    widths = ["--model.tokenizer.encoder_widths", "[8,16,32]", "--model.tokenizer.decoder_widths", "[8,16,32]"]
    network = ["--model.dynamics.widths", "[16,32]", "--model.dynamics.blocks", "[1,1]", "--model.dynamics.heads", "2",
               "--model.dynamics.context_width", "32", "--model.dynamics.window", "8", "--model.targets", "4",
               "--model.rollout", "3", "--data.batch_size", "4", "--data.length", "16"]  # fmt: skip
    tokenizer = str(folder / "runs/golden/tokenizer/last.ckpt")
    latents = ["--data.latents", str(folder / "latents"), "--model.tokenizer", tokenizer]
    geometry = ["--model.geometry", str(folder / "runs/golden/geometry/last.ckpt")]
    memory = [*geometry, "--model.dynamics.recall", "true", "--model.dynamics.warp", "true"]
    flags = {
        "tokenizer": [*widths, "--data.data", json.dumps([str(folder / "data")]), "--data.batch_size", "8"],
        "dynamics without memory": [*latents, *network, "--model.geometry", "null", "--name", "without"],
        "geometry": [*latents, "--data.length", "24", "--data.batch_size", "4", "--model.geometry.trail", "64"],
        "dynamics": [*latents, *network, *memory],
        "distill": [*latents, *network, *geometry, "--init", str(folder / "runs/golden/dynamics/last.ckpt")],
    }
    losses = {}
    for title, own in flags.items():
        stage = title.split()[0]
        if run_stage(stage, ["--config", str(config / f"{stage}.yaml"), *common, *own]):
            raise RuntimeError(f"{title} failed")
        run = "without" if "without" in own else "golden"
        losses[title] = [value for _, value in read_figures(folder / "runs" / run / stage, "loss")]
        if stage == "tokenizer":
            encode([str(folder / "data")], load_tokenizer(Path(tokenizer)), folder / "latents")
        if stage == "geometry":
            draw_views(folder / "latents", load_memory(Path(geometry[1])), load_tokenizer(Path(tokenizer)))
    return losses


def main() -> None:
    what, *rest = sys.argv[1:]
    if what == "play":
        print(json.dumps(play(Path(rest[0]), int(rest[1]))))
    elif what == "train":
        print(json.dumps(train(Path(rest[0]))))
    else:
        played = {name: run("play", str(shipped(name)), str(frames)) for name, frames in PLAYED.items()}
        with tempfile.TemporaryDirectory() as folder:
            losses = run("train", folder)
        GOLDEN.write_text(json.dumps({"release": release(), "play": played, "train": losses}, indent=1) + "\n")


if __name__ == "__main__":
    main()
