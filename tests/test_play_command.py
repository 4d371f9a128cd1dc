"""The command line of play.py, and what it says of bad input."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pygame = pytest.importorskip("pygame")

import windowed  # noqa: E402, F401  SDL draws on nothing

from data_collect.errors import UserError  # noqa: E402
from game_wm.play import app, flags  # noqa: E402


def sentence(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    """What play.py says on stderr as it exits with status 2."""
    from data_collect.errors import main_guard

    assert main_guard(lambda: app.main([str(argument) for argument in arguments])) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and err.startswith("error: ")
    return err


def test_bad_checkpoints(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = saved.read_bytes()
    (tmp_path / "short.safetensors").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "text.safetensors").write_text("hello")
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    for name in ("short", "empty", "text", "other", "missing"):
        assert name in sentence(capsys, tmp_path / f"{name}.safetensors", "--headless", "--frames", 2)
    assert "text" in sentence(capsys, tmp_path / "text.safetensors")  # in the window as well
    assert "folder" in sentence(capsys, tmp_path, "--headless")


def test_bad_options(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "five.npy", np.zeros((5, 3)))
    np.save(tmp_path / "good.npy", np.zeros((5, 4)))
    headless_run = (saved, "--headless", "--frames", 6)
    assert "five.npy" in sentence(capsys, *headless_run, "--actions", tmp_path / "five.npy")
    assert "5 actions" in sentence(capsys, *headless_run, "--actions", tmp_path / "good.npy")
    assert "explorer" in sentence(capsys, *headless_run, "--player", "explorer")
    assert "keyboard" in sentence(capsys, *headless_run, "--player", "keyboard")
    assert "nowhere" in sentence(capsys, *headless_run, "--player", "policy:nowhere:f")
    assert "0 to 2" in sentence(capsys, *headless_run, "--context", 3)
    assert "--view" in sentence(capsys, *headless_run, "--json", "--view", "both")
    assert "say where to begin" in sentence(capsys, *headless_run, "--context", 1, "--picture", "a.png")
    assert "keys.yaml" in sentence(capsys, *headless_run, "--keys", tmp_path / "keys.yaml")
    assert "65" in sentence(capsys, *headless_run, "--steps", 65)
    assert "--headless" in sentence(capsys, saved, "--frames", 3)
    assert "folder" in sentence(capsys, *headless_run, "--video", tmp_path)
    (tmp_path / "file").write_text("")
    assert "cannot be written" in sentence(capsys, *headless_run, "--video", tmp_path / "file" / "a.mp4")
    assert "same film" in sentence(capsys, *headless_run, "--video", "a.mp4", "--record", "b.mp4")
    if not torch.cuda.is_available():
        assert "CUDA" in sentence(capsys, *headless_run, "--device", "cuda")


@pytest.mark.parametrize("seed", ["-5", "99999999999999999999", "one", "0.5"])
def test_bad_seeds(seed: str, saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"--seed: {seed} is not a seed" in sentence(capsys, saved, "--headless", "--seed", seed)


def test_the_largest_seed_plays(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main([str(saved), "--headless", "--frames", "2", "--seed", str(flags.SEEDS - 1)]) == 0
    assert "2 frames" in capsys.readouterr().out


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_while_filming(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".full.mp4.part").symlink_to("/dev/full")
    assert "disk is full" in sentence(capsys, saved, "--headless", "--frames", 3, "--video", tmp_path / "full.mp4")


def test_commands_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    from game_wm.__main__ import main

    assert main([]) == 0 and "evaluate" in capsys.readouterr().out
    with pytest.raises(UserError, match="'dance'"):
        main(["dance"])


def test_a_saved_dream_finds_its_model(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from game_wm.checkpoint import load
    from game_wm.dream import saved as dreams
    from game_wm.play.session import Session

    session = Session(load(saved))
    session.tick()
    dreams.save(tmp_path / "walk.dream", session.snapshot())
    monkeypatch.chdir(tmp_path)
    assert "dreamt by tiny, which is not here" in sentence(capsys, "--replay", "walk.dream", "--headless")
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    (tmp_path / "runs" / "tiny" / "tiny.safetensors").write_bytes(saved.read_bytes())
    assert app.main(["--replay", "walk.dream", "--headless"]) == 0 and "1 frames" in capsys.readouterr().out
