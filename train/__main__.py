"""Training from the command line.

python -m train pipeline --config configs/maze/quick.yaml                        # everything, from nothing to a model
python -m train tokenizer --config configs/maze/tokenizer.yaml                   # stage by stage
python -m train encode --data runs/maze/data --tokenizer runs/maze/tokenizer/last.ckpt --out runs/maze/latents
python -m train geometry --config configs/maze/geometry.yaml                     # depth and motion, for memory
python -m train depth --latents runs/doom/latents --geometry runs/doom/geometry/last.ckpt --out OUT   # a game's own
python -m train motion --latents runs/doom/latents --geometry runs/doom/geometry/last.ckpt --out OUT
python -m train atlas --latents runs/doom/latents --geometry runs/doom/geometry/last.ckpt --out OUT   # known levels
python -m train obstacles --latents runs/doom/latents --geometry runs/doom/geometry/last.ckpt --out OUT
python -m train views --latents runs/maze/latents --geometry runs/maze/geometry/last.ckpt --tokenizer CKPT
python -m train odometry --latents runs/maze/latents --geometry runs/maze/geometry/last.ckpt    # how far it drifts
python -m train dynamics --config configs/maze/dynamics.yaml [--resume] [--init CKPT] [--minutes 40] [--name N]
python -m train distill --config configs/maze/distill.yaml --init runs/maze/dynamics/last.ckpt
python -m train export --run runs/maze --name maze --out checkpoints
python -m train trial configs/trials/maze.yaml --only base muon                  # candidates, after equal minutes
python -m train bench dynamics --config configs/maze/dynamics.yaml               # speed, against the machine's own
python -m train bench reconstruction runs/*/tokenizer/last.ckpt --data runs/maze/data   # tokenizers side by side

Every argument of a stage's configuration file is also a flag: `python -m train dynamics --help`.
"""

from __future__ import annotations

import argparse
import sys

from data_collect.errors import UserError, main_guard
from train import locate


def main(arguments: list[str] | None = None) -> int:
    """Dispatches to a command; returns the exit status."""
    command, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if command in ("-h", "--help"):
        print(__doc__)
        return 0
    rest = [locate(value) if i and rest[i - 1] == "--config" else value for i, value in enumerate(rest)]
    # Imports are late: `--help` and a mistyped command need not wait for PyTorch.
    if command in ("tokenizer", "geometry", "dynamics", "distill"):
        from train.stage import run_stage

        return run_stage(command, rest)
    if command == "bench":
        from train.bench import bench, bench_attention

        if rest[:1] == ["attention"]:
            return bench_attention(rest[1:])
        if rest[:1] == ["reconstruction"]:
            from train.reconstruction import main as reconstruction

            return reconstruction(rest[1:])
        if not rest or rest[0] not in ("tokenizer", "dynamics", "distill"):
            raise UserError(
                "bench what? dynamics, tokenizer or distill (with --config ...), attention or reconstruction"
            )
        return bench(rest[0], rest[1:])
    if command == "pipeline":
        from train.pipeline import main as pipeline

        return pipeline(rest)
    if command == "encode":
        return _encode(rest)
    if command == "depth":
        from train.depth import main as depth

        return depth(rest)
    if command == "motion":
        from train.motion import main as motion

        return motion(rest)
    if command == "atlas":
        from train.atlas import main as atlas

        return atlas(rest)
    if command == "obstacles":
        from train.obstacles import main as obstacles

        return obstacles(rest)
    if command == "views":
        from train.views import main as views

        return views(rest)
    if command == "odometry":
        from train.odometry import main as odometry

        return odometry(rest)
    if command == "export":
        from train.export import main as export

        return export(rest)
    if command == "trial":
        from train.trial import main as trial

        return trial(rest)
    raise UserError(f"no command {command!r}; `python -m train --help` names them all")


def _encode(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m train encode", description="Recordings to latents, once.")
    parser.add_argument("--data", nargs="+", required=True, help="folders that `data_collect record` wrote")
    parser.add_argument("--tokenizer", required=True, help="checkpoint with the tokenizer")
    parser.add_argument("--out", required=True, help="folder for the latents")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    from train.encode import encode
    from train.machine import usable, use_all_cores
    from train.tokenizer import load_tokenizer

    use_all_cores()
    device = usable(options.device)
    encode(options.data, load_tokenizer(options.tokenizer, device), options.out, device)
    return 0


if __name__ == "__main__":
    sys.exit(main_guard(main))
