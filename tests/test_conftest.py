"""The switch under which nothing may be skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SKIPPING = """
import pytest
@pytest.mark.skipif(True, reason="marked")
def test_marked(): pass
def test_called(): pytest.skip("called")
@pytest.fixture
def absent(): pytest.skip("in a fixture")
def test_absent(absent): pass
@pytest.mark.xfail
def test_expected(): assert False
def test_good(): pass
"""


@pytest.mark.parametrize("source, reasons", [
    (SKIPPING, {"marked", "called", "in a fixture"}),
    ("import pytest; pytest.importorskip('no_such_package')", {"No module named 'no_such_package'"}),
], ids=["tests", "a whole file"])  # fmt: skip
def test_a_skipped_test_fails_under_the_switch(source: str, reasons: set[str], tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "--rootdir", str(tmp_path), str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "PYTHONDONTWRITEBYTECODE": "1"}
    usual, strict = (
        subprocess.run([*command, *more], env=env, capture_output=True, text=True).stdout
        for more in ((), ("--no-skip",))
    )
    assert f"{len(reasons)} skipped" in usual.splitlines()[-1] and "skipped" not in strict.splitlines()[-1]
    for reason in reasons:
        assert any(line.startswith("skipped, where nothing may be") and reason in line for line in strict.splitlines())
