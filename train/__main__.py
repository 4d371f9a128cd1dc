"""`python -m train`: see `train/commands/`."""

from __future__ import annotations

import sys

from data_collect.errors import main_guard
from train import locate
from train.commands import PROGRAM


def main(arguments: list[str] | None = None) -> int:
    """Run one command; its exit status. `UserError` for what the user can mend."""
    words = sys.argv[1:] if arguments is None else arguments
    return PROGRAM.run([locate(word) if i and words[i - 1] == "--config" else word for i, word in enumerate(words)])


if __name__ == "__main__":
    sys.exit(main_guard(main))
