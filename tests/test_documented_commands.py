"""The commands in the documents' code blocks: the quick ones run, on tiny files; all others are read as their programs
read them, with values and required flags. Inline commands: `test_hints.py`."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from data_collect.commandline import load
from data_collect.commands import PROGRAM as COLLECT
from game_wm.commands import PROGRAM as MODELS
from game_wm.play import app, flags
from train.commands import PROGRAM as TRAIN
from train.commands.stages import STAGES

pytest.importorskip("lightning")
from tiny import tiny_checkpoint

from train.pipeline.flags import parse
from train.stages.configuration import read_stage

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAMS = {program.prog.split()[-1]: program for program in (COLLECT, MODELS, TRAIN)}
# What of a block goes to the shell, which fills in variables, loops and patterns; `python` there only tells its words.
LINES = re.compile(r"\s*(python (-m|play\.py)|for |done|export |unset )")
TELL = 'python() { for word; do printf "%s\\0" "$word"; done; printf "\\n"; }\n'


def written(page: Path) -> list[tuple[str, ...]]:
    """The words of every command in a page's blocks without a language."""
    text = "\n".join(re.findall(r"```\n(.*?)```", page.read_text(), re.DOTALL)).replace(".venv/bin/python", "python")
    lines = [line for line in text.replace("\\\n", " ").splitlines() if LINES.match(line)]
    if not lines:
        return []
    script = TELL + "\n".join(lines)
    told = subprocess.run(["bash", "-e", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [tuple(line.split("\0")[:-1]) for line in told.splitlines()]


PROGRAM = """
import pygame
pygame.init()
screen, x = pygame.display.set_mode((64, 64)), 0
while True:
    pygame.event.pump()
    keys = pygame.key.get_pressed()
    x = (x + keys[pygame.K_RIGHT] - keys[pygame.K_LEFT] + keys[pygame.K_SPACE]) % 64
    screen.fill((0, 0, 0))
    screen.fill((255, 0, 0), (x, 30, 8, 8))
    pygame.display.flip()
"""
COMMANDS = sorted({words for page in PAGES for words in written(page)})


def value(words: Sequence[str], flag: str) -> str:
    return words[words.index(flag) + 1] if flag in words else ""


def kind(words: Sequence[str]) -> tuple[str, ...]:
    """Commands of the same kind are quick alike, and one of them is run; () for those that are only read."""
    if words[0] == "play.py":
        runs = (
            "--headless" in words and "--replay" not in words
        )  # a saved dream belongs to one checkpoint: test_rewind.py
        return ("play", *(word for word in words if word.startswith("-"))) if runs else ()
    if words[1:3] == ("data_collect", "record"):
        return ("record", value(words, "--game").partition("?")[0], value(words, "--player"))
    quick = {("data_collect", "inspect"), ("data_collect", "verify"), ("game_wm", "prune"), ("game_wm", "export")}
    return words[1:3] if words[1:3] in quick else ()


QUICK = {kind(words): words for words in COMMANDS if kind(words)}


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 60
    assert len(QUICK) >= 8


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_is_read(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is opened but configuration files."""
    monkeypatch.chdir(ROOT)
    if words[0] == "play.py":
        flags.parser().parse_args(words[1:])
    elif words[1] == "train" and words[2] in STAGES:
        there = not value(words, "--init") or (ROOT / value(words, "--init")).exists()
        cut = len(words) if there else words.index("--init")  # what a stage before it leaves
        read_stage(words[2], [*words[3:cut], *words[cut + 2 :]])
    elif words[1:3] == ("train", "pipeline"):
        parse(words[3:])
    else:
        command, rest = PROGRAMS[words[1]].find(words[2:])
        assert command is not None
        load(command.parser)().parse_args(rest)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a reader has it: the tutorial's game, a pygame program, a recording and a playable file."""
    folder = tmp_path_factory.mktemp("reader")
    tutorial = (ROOT / "docs" / "tutorial" / "your-first-game.md").read_text()
    game = next(block for block in re.findall(r"```python\n(.*?)```", tutorial, re.DOTALL) if "gym.register" in block)
    (folder / "my_game.py").write_text(game)
    (folder / "my_program.py").write_text(PROGRAM)
    (folder / "examples").symlink_to(ROOT / "examples")
    tiny_checkpoint(folder / "tiny.safetensors", contexts=6, endless=True)
    COLLECT.run(
        ["record", "--game", "maze", "--player", "random", "--frames", "40", "--out", str(folder / "recording")]
    )
    return folder


def shrunk(words: Sequence[str], folder: Path) -> list[str]:
    """The same command about little, and about what there is."""
    words = list(words)
    for flag, most in (("--frames", "20"), ("--workers", "1"), ("--episode-frames", "20")):
        if flag in words:
            words[words.index(flag) + 1] = most
    if "human" in words:  # nobody is here
        words[words.index("human")] = "random"
    if words[0] == "play.py":
        named = not words[1].startswith("-")
        return [words[0], str(folder / "tiny.safetensors"), *words[2 if named else 1 :]]
    place = next((i for i, word in enumerate(words[3:], 3) if not word.startswith("-")), None)
    if words[2] in ("inspect", "verify", "prune", "export") and place is not None:
        words[place] = "recording" if words[2] in ("inspect", "verify") else "tiny.safetensors"
    return words


@pytest.mark.slow
@pytest.mark.parametrize("words", QUICK.values(), ids=" ".join)
def test_a_quick_command_runs(words: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    if words[1:3] == ("game_wm", "export"):
        pytest.importorskip("onnxruntime")
    rest = shrunk(words, folder)
    assert not (app.main(rest[1:]) if rest[0] == "play.py" else PROGRAMS[rest[1]].run(rest[2:]))
