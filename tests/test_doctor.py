"""What the doctor finds, and that each finding that is not good has its remedy."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny import tiny_checkpoint
from xvfb import Xvfb

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
    monkeypatch.setattr("game_wm.acceleration.precision.supported", lambda device="cpu": False)
    states = {found.about: found for found in doctor.processor()}
    assert states["precision"].state == "poor" and "nothing need be done" in states["precision"].remedy
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (card,) = doctor.graphics_card()
    assert card.state == "poor" and card.remedy


def test_a_window_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PATIENCE", 0.01)
    (found,) = doctor.display()
    assert found.state == "poor" and "nothing within 0.01 s" in found.found and "--headless" in found.remedy


@pytest.mark.slow
def test_compiled_code_runs_beside_a_window_that_gl_draws(x11: Xvfb, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in x11.environment(SDL_FRAMEBUFFER_ACCELERATION="1").items():
        monkeypatch.setenv(name, value)
    (window,), (compiled,) = doctor.display(), doctor.compiled_play()
    assert (window.state, window.found) == ("good", "a window opens (x11)")
    assert compiled.state == "good" and "runs beside a window" in compiled.found
    assert re.search(r"LLVM in that process: libLLVM\S+ alone", compiled.found)


@pytest.mark.slow
def test_compiled_code_without_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "no-such-driver")
    monkeypatch.setenv("CXX", "false")
    (found,) = doctor.compiled_play()
    assert found.state == "poor" and "C++ compiler" in found.found and "balanced" in found.remedy
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert list(doctor.compiled_play()) == []  # it has been said that there is none


def test_two_llvms_in_one_process_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = "7f00-7f01 r-xp 00000000 08:01 1 {}\n"
    files = ("/usr/lib/libLLVM-15.so.1", "/a folder/triton/_C/libtriton.so", "/usr/lib/libGL.so.1", "[heap]", "")
    there = doctor.llvms("".join(maps.format(file) for file in files))
    assert there == ["libLLVM-15.so.1", "libtriton.so"]
    monkeypatch.setattr(doctor, "ask", lambda call: ({"driver": "x11", "llvms": there}, ""))
    monkeypatch.setattr(shutil, "which", lambda name: name)
    (found,) = doctor.compiled_play()
    assert found.state == "poor" and "libLLVM-15.so.1 and libtriton.so meet" in found.found and found.remedy


@pytest.mark.parametrize(
    ("capability", "built", "runs"),
    [
        ((9, 0), ["sm_80", "sm_90"], True), ((8, 9), ["sm_80", "sm_90"], True), ((8, 0), ["sm_86"], False),
        ((12, 0), ["sm_80", "sm_90"], False), ((12, 0), ["sm_80", "compute_90"], True), ((6, 1), ["compute_75"], False),
        ((9, 0), ["sm_90a"], True), ((12, 1), ["sm_120a"], False), ((10, 3), ["sm_100f"], True),
        ((11, 0), ["sm_100f"], False),
    ],
)  # fmt: skip
def test_which_cards_code_runs_on(capability: tuple[int, int], built: list[str], runs: bool) -> None:
    assert doctor.runs_on(capability, built) == runs


def test_a_card_that_pytorch_has_no_code_for(monkeypatch: pytest.MonkeyPatch) -> None:
    fakes = {
        "is_available": lambda: True, "get_device_name": lambda: "NVIDIA Fake",
        "get_device_properties": lambda index: SimpleNamespace(total_memory=8 * 2**30),
        "get_arch_list": lambda: ["sm_75", "sm_90", "compute_90"],
    }  # fmt: skip
    for name, fake in fakes.items():
        monkeypatch.setattr(f"torch.cuda.{name}", fake)
    monkeypatch.setattr("torch.version.cuda", "12.8")

    def card(*capability: int) -> doctor.Finding:
        monkeypatch.setattr("torch.cuda.get_device_capability", lambda: capability)
        (found,) = doctor.graphics_card()
        return found

    assert card(9, 0).state == card(12, 0).state == "good" and "NVIDIA Fake, 8 GiB" in card(9, 0).found
    old = card(6, 1)
    assert old.state == "bad" and "6.1" in old.found and "sm_75" in old.found
    assert "older CUDA" in old.remedy and "--device cpu" in old.remedy
    monkeypatch.setattr("torch.cuda.get_arch_list", lambda: ["sm_75", "sm_90"])
    assert card(12, 0).state == "bad" and "newer CUDA" in card(12, 0).remedy
    monkeypatch.setattr("torch.version.cuda", None)  # ROCm has names of its own
    monkeypatch.setattr("torch.cuda.get_arch_list", lambda: ["gfx90a"])
    assert card(9, 0).state == "good"


@pytest.mark.slow
def test_checkpoints_are_measured(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path / "tiny.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no model")
    broken, tiny = doctor.checkpoints(tmp_path, frames=4)
    assert broken.state == "bad" and "broken.safetensors" in broken.found
    assert tiny.state in ("good", "poor") and "frames/s" in tiny.found
    (empty,) = doctor.checkpoints(tmp_path / "nothing")
    assert empty.state == "poor" and "make demo" in empty.remedy


def test_it_looks_at_its_own_checkpoints_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders: list[Path] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr(doctor, "checkpoints", lambda folder: folders.append(folder) or iter(()))
    monkeypatch.setattr(doctor, "compiled_play", lambda: iter(()))
    assert doctor.main(["--json"]) == 0 and json.loads(capsys.readouterr().out)
    assert folders == [Path(doctor.__file__).parents[1] / "checkpoints"]
    monkeypatch.setattr(doctor, "SHIPPED", tmp_path / "checkpoints")  # none came with it
    assert doctor.main(["--json"]) == 0 and folders[1] == tmp_path / "checkpoints"


def test_a_folder_that_is_none() -> None:
    with pytest.raises(UserError, match="no folder"):
        doctor.main(["--checkpoints", "nowhere"])
