"""Machines unlike ours: outputs, folders, users and limits that make a program stumble; all four programs."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_collect import system
from data_collect.errors import refusal
from data_collect.recording.record import record

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PROGRAMS = {
    "data_collect": ["-m", "data_collect", "inspect"],
    "game_wm": ["-m", "game_wm", "evaluate"],
    "train": ["-m", "train", "encode", "--tokenizer", "t", "--out", "o", "--data"],
    "play.py": [str(ROOT / "play.py")],
}


def run(words: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """One program in a process of its own."""
    asked = {**os.environ, "PYTHONPATH": str(ROOT), "SDL_VIDEODRIVER": "dummy", **environment}
    return subprocess.run([sys.executable, *words], cwd=folder, env=asked, capture_output=True, timeout=120)


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii"])
def test_an_output_that_is_not_utf8_gets_what_it_knows(encoding: str, tmp_path: Path) -> None:
    record(tmp_path / "data", "maze?size=5", "random", 60)
    made = run([*PROGRAMS["data_collect"], "data"], tmp_path, PYTHONIOENCODING=encoding)
    assert made.returncode == 0 and b"#" in made.stdout and b"64x64" in made.stdout
    for program in PROGRAMS.values():
        made = run([*program[:1], "--help"] if len(program) == 1 else [*program[:2], "--help"], tmp_path,
                   PYTHONIOENCODING=encoding)  # fmt: skip
        assert made.returncode == 0 and made.stdout and not made.stderr


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("long", ["n" * 300, "x/" * 2000 + "y"])
def test_a_name_that_is_too_long_is_one_sentence(name: str, long: str, tmp_path: Path) -> None:
    made = run([*PROGRAMS[name], long], tmp_path)
    lines = made.stderr.decode().splitlines()
    assert made.returncode == 2 and len(lines) == 1 and lines[0].startswith("error: ")


@pytest.mark.skipif(sys.platform == "win32", reason="a folder that is in use stays there")
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_working_folder_that_is_gone_is_one_sentence(name: str, tmp_path: Path) -> None:
    words = " ".join([sys.executable, *PROGRAMS[name], "x"])
    made = subprocess.run(["sh", "-c", f"mkdir gone && cd gone && rmdir ../gone && {words}"], cwd=tmp_path,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)  # fmt: skip
    assert made.returncode == 2 and "folder that you are in is gone" in made.stderr


def test_a_folder_that_cannot_be_synced_is_recorded_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def refuses(file: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{file}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(file)

    monkeypatch.setattr(os, "fsync", refuses)
    assert record(tmp_path / "data", "maze?size=5", "random", 60).card["frames"] == 60


def test_room_is_reserved_where_linux_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    file = tmp_path / "sparse"
    with open(file, "wb") as sparse:
        sparse.write(b"head")
        sparse.truncate(3 * system.MIB + 5)
    system.reserve(file)
    assert file.read_bytes() == b"head" + bytes(3 * system.MIB + 1) and system.cores() >= 1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENAMETOOLONG, errno.ENOSPC])
def test_what_the_system_refuses_is_a_sentence(number: int) -> None:
    said = refusal(OSError(number, os.strerror(number), "n" * 300))
    assert said and "\n" not in said
    assert refusal(OSError(errno.EINVAL, "other")) is None
