"""`python -m data_collect`: see `data_collect/commands.py`."""

from __future__ import annotations

import os
import sys

from data_collect.commands import PROGRAM
from data_collect.errors import main_guard


def main(arguments: list[str] | None = None) -> int:
    """Run one command; `UserError` for what the user can mend."""
    # One process a core: threads of numerical libraries would only fight them. Before numpy is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    return PROGRAM.run(sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main_guard(main))
