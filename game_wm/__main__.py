"""The commands of a checkpoint.

python -m game_wm play [CHECKPOINT] …         # the same as play.py
python -m game_wm evaluate CHECKPOINT …       # measure it and write its card
python -m game_wm doctor                      # what this machine can play, and what keeps it from more
python -m game_wm export CHECKPOINT --out DIR # its networks as ONNX files
python -m game_wm prune CHECKPOINT --out FILE # a smaller one, to be trained on
python -m game_wm compare configs/lab/*.yaml  # methods, each trained as long: quality and milliseconds in one table
"""

from __future__ import annotations

import sys
from functools import partial
from importlib import import_module

from data_collect.errors import UserError, main_guard

# A command's module is imported when it is asked for: evaluation brings more with it than playing.
COMMANDS = {
    "play": "game_wm.ui.app",
    "evaluate": "game_wm.evaluation",
    "doctor": "game_wm.doctor",
    "export": "game_wm.acceleration.export",
    "prune": "game_wm.acceleration.pruning",
    "compare": "train.compare",
}


def main(argv: list[str]) -> int:
    """Run the command named first; returns its exit status."""
    if argv[:1] in ([], ["-h"], ["--help"]):
        print(__doc__.strip())
        return 0
    command, *rest = argv
    if command not in COMMANDS:
        raise UserError(f"{command!r} is not a command of game_wm: it has {', '.join(COMMANDS)}")
    return import_module(COMMANDS[command]).main(rest)


if __name__ == "__main__":
    sys.exit(main_guard(partial(main, sys.argv[1:])))
