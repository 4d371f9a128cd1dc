"""Play a checkpoint.

python play.py                                            # checkpoints/doom.safetensors, in a window
python play.py checkpoints/maze.safetensors --player random --record dream.mp4
python play.py --headless --frames 600 --video dream.mp4  # no display needed
python play.py --headless --frames 10000 --json           # what a frame costs
python play.py --web                                      # in a browser, several players at once
"""

import sys

from data_collect.errors import main_guard
from game_wm.ui.app import main

if __name__ == "__main__":
    sys.exit(main_guard(main))
