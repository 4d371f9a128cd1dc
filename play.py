"""Play a checkpoint: the same as `python -m game_wm play`; `--help` has examples."""

import sys

from data_collect.errors import main_guard
from game_wm.play.app import main

if __name__ == "__main__":
    sys.exit(main_guard(main))
