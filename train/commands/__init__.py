"""The commands of `python -m train`. Nothing here imports PyTorch: every `--help` is there at once."""

from __future__ import annotations

from data_collect.commandline import Command, Program
from train.commands.stages import ABOUT
from train.commands.tools import ENCODE

WHOLE, PART, GEOMETRY, MEASURE = "from nothing to a model", "stage by stage", "for memory, after geometry", "measure"


def command(name: str, group: str, about: str, main: str, all_flags: bool = False) -> Command:
    """A command whose parser is the function of its name, of a stage (`all_flags`) or of a tool."""
    pages = "train.commands.stages" if all_flags else "train.commands.tools"
    return Command(name, group, about, main, f"{pages}:{name.replace(' ', '_')}", all_flags)


PROGRAM = Program(
    "python -m train",
    "Training: a recording becomes a tokenizer, a dynamics model and a distilled checkpoint.",
    [
        command("pipeline", WHOLE, "all of it: record, train, distil, export; run it again to continue",
                "train.pipeline:main", all_flags=True),
        command("tokenizer", PART, ABOUT["tokenizer"], "train.stages.cli:tokenizer", all_flags=True),
        command("encode", PART, "recordings to latents, once", "train.data.encode:main"),
        command("geometry", PART, ABOUT["geometry"], "train.stages.cli:geometry", all_flags=True),
        command("scroll", PART, "the memory of a world that scrolls, from pictures alone", "train.scroll.memory:main"),
        command("views", PART, "what memory would show of every frame, once", "train.first_person.draw_views:main"),
        command("dynamics", PART, ABOUT["dynamics"], "train.stages.cli:dynamics", all_flags=True),
        command("distill", PART, ABOUT["distill"], "train.stages.cli:distill", all_flags=True),
        command("export", PART, "a finished run as one playable file", "train.export:main"),
        command("depth", GEOMETRY, "depth, of a game that knows it", "train.first_person.part:depth"),
        command("motion", GEOMETRY, "motion with inertia, on all steps at once", "train.first_person.part:motion"),
        command("atlas", GEOMETRY, "what is known of a level before play", "train.first_person.part:atlas"),
        command("obstacles", GEOMETRY, "what is in the way of players", "train.first_person.part:obstacles"),
        command("camera", MEASURE, "which camera a recording was taken with, and so which memory fits",
                "train.camera.evidence:main"),
        command("odometry", MEASURE, "how far reckoned places drift from recorded ones",
                "train.first_person.odometry:main"),
        command("trial", MEASURE, "candidates side by side, after equal minutes", "train.lab.trial:main"),
        command("bench tokenizer", MEASURE, "how fast the tokenizer trains, against the machine's own rate",
                "train.lab.bench.stages:tokenizer", all_flags=True),
        command("bench dynamics", MEASURE, "the same of the dynamics; --synthetic needs no recording",
                "train.lab.bench.stages:dynamics", all_flags=True),
        command("bench distill", MEASURE, "the same of distillation", "train.lab.bench.stages:distill", all_flags=True),
        command("bench attention", MEASURE, "what a frame costs in play by its context",
                "train.lab.bench.attention:main"),
        command("bench reconstruction", MEASURE, "tokenizers side by side", "train.lab.bench.reconstruction:main"),
    ],
    [
        "python -m train pipeline --config configs/maze/quick.yaml",
        "python -m train tokenizer --config configs/maze/tokenizer.yaml --minutes 20",
        ENCODE,
        "python -m train dynamics --config configs/maze/dynamics.yaml --minutes 60 --resume",
    ],
)  # fmt: skip
