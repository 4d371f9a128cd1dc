"""`python -m game_wm`: see `game_wm/commands.py`."""

from __future__ import annotations

import sys

from data_collect.errors import main_guard
from game_wm.commands import PROGRAM


def main(arguments: list[str] | None = None) -> int:
    """Run one command; its exit status. `UserError` for what the user can mend."""
    return PROGRAM.run(sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main_guard(main))
