"""The commands of `python -m game_wm`, and the flags of two. Nothing imports PyTorch: `--help` is there at once."""

from __future__ import annotations

from pathlib import Path

from data_collect.commandline import Command, Parser, Program

PROGRAM = Program(
    "python -m game_wm",
    "The commands of a checkpoint.",
    [
        Command("play", "play", "in a window, in a browser, or without a display; the same as play.py",
                "game_wm.play.app:main", "game_wm.play.flags:parser"),
        Command("doctor", "play", "what this machine can play, how fast, and what keeps it from more",
                "game_wm.doctor:main", "game_wm.doctor:parser"),
        Command("evaluate", "measure", "measure a checkpoint against the real game, and write its card",
                "game_wm.evaluation.evaluate:main", "game_wm.evaluation.evaluate:parser"),
        Command("compare", "measure", "methods side by side, each trained for as long",
                "train.lab.compare:main", "train.commands.tools:compare"),
        Command("sizes", "measure", "a ladder of sizes: parameters, memory, frames/s on named GPUs",
                "train.lab.sizes.command:main", "train.commands.tools:sizes"),
        Command("bench gpu", "measure", "play, training and the ladder, as fast as they are on this GPU",
                "train.lab.bench.gpu:main", "train.commands.tools:bench_gpu"),
        Command("export", "make another of it", "its networks as ONNX files",
                "game_wm.acceleration.export:main", "game_wm.commands:export"),
        Command("prune", "make another of it", "a smaller one, to be trained on",
                "game_wm.acceleration.pruning:main", "game_wm.commands:prune"),
    ],
    [
        "python -m game_wm play checkpoints/maze.safetensors",
        "python -m game_wm doctor",
        "python -m game_wm evaluate runs/mine/mine.safetensors --suite fidelity,control --episodes 2",
        "python -m game_wm compare configs/lab/*.yaml",
    ],
)  # fmt: skip


def export() -> Parser:
    parser = Parser("python -m game_wm export", "Write a checkpoint's networks as ONNX files.", [
        "python -m game_wm export checkpoints/maze.safetensors --out onnx",
    ])  # fmt: skip
    parser.add_argument("checkpoint", type=Path, help="a .safetensors file")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write to")
    parser.add_argument("--players", type=int, default=1, metavar="N", help="in a batch (default: 1)")
    return parser


def prune() -> Parser:
    parser = Parser("python -m game_wm prune", "Make a checkpoint smaller by what its seed contexts show.", [
        "python -m game_wm prune checkpoints/maze.safetensors --share 0.25 --out smaller.safetensors",
    ])  # fmt: skip
    parser.add_argument("checkpoint", type=Path, help="a .safetensors file")
    parser.add_argument("--share", type=float, default=0.25, help="of the hidden channels that go (default: 0.25)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the .safetensors file to write")
    return parser
