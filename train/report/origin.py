"""What made a file: the commit of this project, the versions of the packages that matter.

origin()        # {"commit": "1f2e…", "packages": {"python": "3.11.2", "torch": "2.14.1+cpu", …}}
"""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("numpy", "torch", "lightning", "timm", "gymnasium")


@cache
def commit() -> str:
    """The commit of this project's files, with "-dirty" where they differ from it; "" where they are in no repository
    of their own."""
    try:
        if Path(_git("rev-parse", "--show-toplevel")).resolve() != ROOT:
            return ""
        return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.strip()


def origin() -> dict[str, Any]:
    """The commit, and the versions of Python and of the packages that are installed."""
    packages = {"python": platform.python_version()}
    for name in ("game_wm", *PACKAGES):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"commit": commit(), "packages": packages}
