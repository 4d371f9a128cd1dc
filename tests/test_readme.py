"""What the README names exists: files, modules, make targets."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
FILES = set(re.findall(r"[\w/-]+/[\w-]+\.(?:py|md|yaml|safetensors|json|png)\b", README))


@pytest.mark.parametrize("path", sorted(path for path in FILES if not path.startswith(("runs/", "data/"))))
def test_files(path: str) -> None:
    if path.startswith("checkpoints/") and not (ROOT / "checkpoints").exists():
        pytest.skip("no checkpoints here")
    assert (ROOT / path).exists()


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m ([a-z_]+)", README)) - {"venv"}))
def test_modules(module: str) -> None:
    assert importlib.util.find_spec(f"{module}.__main__")


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE))))
def test_targets(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
