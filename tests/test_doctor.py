"""What the doctor finds, and that each finding that is not good has its remedy."""

import json
import shutil
from pathlib import Path

import pytest
from tiny import tiny_checkpoint

from data_collect.errors import UserError
from game_wm import doctor


def test_a_machine_without_a_window_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    assert doctor.main(["--quick", "--json"]) == 0
    findings = {found["about"]: found for found in json.loads(capsys.readouterr().out)}
    assert {"python", "processor", "precision", "compiler", "GPU", "display", "memory", "disk"} <= set(findings)
    assert findings["display"]["state"] == "poor" and "--headless" in findings["display"]["remedy"]
    monkeypatch.setenv("SDL_VIDEODRIVER", "no-such-driver")
    (found,) = doctor.display()
    assert found.state == "poor" and "--headless" in found.remedy


def test_known_bad_versions(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    versions = {"lightning": "2.6.2", "torch": "2.14.1", "pygame": "2.6.0", "pygame-ce": "2.5.8"}
    monkeypatch.setattr(doctor, "installed", versions.get)
    bad = {found.about: found for found in doctor.python() if found.state == "bad"}
    assert set(bad) == {"lightning", "pygame"} and all(found.remedy for found in bad.values())
    monkeypatch.setattr(doctor, "installed", lambda name: None)
    assert "not installed" in next(found for found in doctor.python() if found.about == "PyTorch").found
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    assert doctor.main(["--quick"]) == 1
    assert "!!  PyTorch" in capsys.readouterr().out


def test_a_compiler_and_a_card_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi" if name == "nvidia-smi" else None)
    states = {found.about: found for look in (doctor.processor, doctor.graphics_card) for found in look()}
    assert states["compiler"].state == "poor" and "g++" in states["compiler"].remedy
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (card,) = doctor.graphics_card()
    assert card.state == "poor" and card.remedy


def test_checkpoints_are_measured(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path / "tiny.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no model")
    broken, tiny = doctor.checkpoints(tmp_path, frames=4)
    assert broken.state == "bad" and "broken.safetensors" in broken.found
    assert tiny.state in ("good", "poor") and "frames/s" in tiny.found
    (empty,) = doctor.checkpoints(tmp_path / "nothing")
    assert empty.state == "poor" and "make demo" in empty.remedy


def test_a_folder_that_is_none() -> None:
    with pytest.raises(UserError, match="no folder"):
        doctor.main(["--checkpoints", "nowhere"])
