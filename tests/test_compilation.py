"""Compiled play: the same frames, and reasons where there is no compiled code."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from prompted import prompted
from tiny import tiny_checkpoint, tiny_world

from game_wm.acceleration import compilation
from game_wm.checkpoint import load
from game_wm.world import WorldModel

pytestmark = pytest.mark.slow


def test_compiled_code_dreams_the_same(compiled_code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAME_WM_CACHE", str(compiled_code))
    path = tiny_checkpoint(tmp_path / "tiny.safetensors", endless=True)
    (plain, compiled), said = (load(path).model for _ in range(2)), []
    state, actions = prompted(plain)
    compilation.compile(compiled, tell=said.append)
    before = compiled.step(state.clone(), actions[5])[0].frames  # play does not wait
    assert compiled.compiling is not None
    compiled.compiling.join()
    assert compiled.compiled and said == ["from here on compiled"]
    dream = state.clone()
    for action in actions[5:]:
        dreamt = compiled.step(dream, action, steps=2)[0].frames.float()
        assert (dreamt - plain.step(state, action, steps=2)[0].frames.float()).abs().max() <= 1
    for name, value in state.to_dict().items():
        torch.testing.assert_close(dream.to_dict()[name], value, atol=1e-3, rtol=0)
    assert before.shape == (1, 64, 64, 3)
    # What has been made once is found again; another number of players is played as before.
    again = compilation.compile(load(path).model, tell=said.append)
    assert again.compiling is not None
    again.compiling.join()
    assert said[1:] == ["from here on compiled"] and len(list((compiled_code / "compiled").iterdir())) == 1
    state, actions = prompted(plain, players=2)
    dreams = [model.step(state.clone(), actions[5])[0].frames for model in (again, plain)]
    assert torch.equal(*dreams)


def test_a_package_does_what_pytorchs_own_loader_makes_of_it(
    compiled_code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAME_WM_CACHE", str(compiled_code))
    model = load(tiny_checkpoint(tmp_path / "tiny.safetensors", endless=True)).model
    compilation.compile(model)
    assert model.compiling is not None
    model.compiling.join()
    (folder,) = (compiled_code / "compiled").iterdir()
    for name, _, arguments in compilation.parts(tiny_world(), 1):
        path, given = folder / f"{name}.pt2", [compilation.copied(arguments) for _ in range(2)]
        ours, theirs = compilation.Package(path)(*given[0]), torch._inductor.aoti_load_package(str(path))(*given[1])
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
        torch.testing.assert_close(given[0], given[1], rtol=0, atol=0)  # what it writes in place


@pytest.mark.parametrize("obstacles", [False, True])
def test_the_parts_that_are_compiled_are_functions_of_tensors(obstacles: bool) -> None:
    model = tiny_world(recall=True)
    if obstacles:
        config = model.config
        assert config.memory is not None
        memory = replace(config.memory, inertia=True, two_step_inertia=True, trail=8, obstacles=True)
        dynamics = replace(config.dynamics, aligned=True)
        model = WorldModel(replace(config, memory=memory, dynamics=dynamics)).eval().requires_grad_(False)
        assert model.memory.geometry is not None and model.memory.geometry.obstacles is not None
        torch.nn.init.constant_(model.memory.geometry.obstacles.net[-1].bias, -0.5)  # type: ignore[arg-type]
    for name, part, arguments in compilation.parts(model, 2):
        with torch.no_grad():
            made = torch.export.export(part, arguments, strict=False).module()(*compilation.copied(arguments))
            torch.testing.assert_close(made, part(*compilation.copied(arguments)), atol=1e-5, rtol=1e-4, msg=name)


def test_compiled_code_that_does_something_else_is_found_out() -> None:
    calls: list[torch.Tensor] = []

    def other_the_second_time(x: torch.Tensor) -> torch.Tensor:
        calls.append(x)
        return x * len(calls)

    def rounded(x: torch.Tensor) -> torch.Tensor:
        return x + 0.003

    small = (torch.tensor([0.02]),)  # such as a reward, of terms of about 1
    compilation.check("part", rounded, torch.clone, small, low_precision=True)
    for made, arguments in ((rounded, small), (other_the_second_time, (torch.ones(4),))):
        with pytest.raises(RuntimeError, match="something else of part"):
            compilation.check("part", made, torch.clone, arguments, low_precision=False)
    assert len(calls) == 2


def test_without_a_compiler_play_goes_on_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    said: list[str] = []
    model = compilation.compile(tiny_world(), tell=said.append)
    assert len(said) == 1 and "g++" in said[0] and "uncompiled" in said[0] and not model.compiled
    state, actions = prompted(model)
    model.step(state, actions[5])


def test_code_that_cannot_be_made_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GAME_WM_CACHE", str(tmp_path / "file"))
    said: list[str] = []
    model = compilation.compile(tiny_world(), tell=said.append)
    assert model.compiling is not None
    model.compiling.join()
    assert len(said) == 1 and str(tmp_path / "file") in said[0] and not model.compiled
