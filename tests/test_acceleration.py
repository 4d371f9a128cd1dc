"""Each acceleration plays the same model."""

import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_checkpoint, tiny_config, tiny_world

from data_collect.errors import UserError
from game_wm.acceleration import compilation, export, pack, precision, pruning, quantisation
from game_wm.acceleration.batching import Batch
from game_wm.checkpoint import load, save
from game_wm.state import WorldState
from game_wm.world import WorldModel, frame_noise
from train.lab.acceleration import caching, onnx, pipelining


def prompted(model: WorldModel, players: int = 1) -> tuple[WorldState, torch.Tensor]:
    """A state after six frames of noise, and actions (T, B, A) to go on with."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (players, 6, 64, 64, 3), dtype=torch.uint8, generator=generator)
    actions = torch.rand(8, players, 4, generator=generator).round()
    return model.start(frames, actions[:5].transpose(0, 1), torch.arange(players)), actions


@pytest.mark.parametrize("recall", [False, True], ids=["working memory", "episodic memory"])
def test_sixteen_bits_dream_the_same_but_for_rounding(recall: bool) -> None:
    world, halved = tiny_world(recall=recall), precision.half(tiny_world(recall=recall))
    assert halved.low_precision and not world.low_precision
    frames = torch.randint(0, 256, (2, 6, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    actions, seeds = torch.rand(2, 5, 4).round(), torch.tensor([1, 2])
    pictures = []
    for model in (world, halved):
        state = model.start(frames, actions, seeds)
        outcome, state = model.step(state, actions[:, 0])
        assert all(x.dtype != torch.bfloat16 for x in state.to_dict().values())
        pictures.append(outcome.frames.float())
    assert (pictures[0] - pictures[1]).abs().mean() < 0.05 * pictures[0].std() + 1


@pytest.mark.parametrize("recall", [False, True], ids=["working memory", "episodic memory"])
def test_eight_bits_stay_within_their_error(recall: bool) -> None:
    plain, quantised = tiny_world(recall=recall), precision.choose(tiny_world(recall=recall), "8")
    pack(quantised)
    layers = [m for m in quantised.modules() if isinstance(m, quantisation.Quantised)]
    assert {type(m) for m in layers} == {quantisation.QuantisedConvolution, quantisation.QuantisedLinear}
    assert all(m.weight.dtype == torch.int8 for m in layers) and quantised.quantised
    assert sum(p.numel() for p in quantised.parameters()) == sum(p.numel() for p in plain.parameters())
    state, actions = prompted(plain, players=2)
    dreams = [model.step(state.clone(), actions[5])[0].frames.float() for model in (plain, quantised)]
    assert 0 < (dreams[0] - dreams[1]).abs().mean() < 0.05 * dreams[0].std()


@pytest.mark.parametrize("kind", ["convolution", "linear"])
def test_a_layer_in_eight_bits_is_off_by_half_a_step_at_most(kind: str) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(32, 16, 3, padding=1) if kind == "convolution" else torch.nn.Linear(32, 16)
    x = torch.randn(2, 32, 8, 8) if kind == "convolution" else torch.randn(5, 3, 32)
    made = (quantisation.QuantisedConvolution if kind == "convolution" else quantisation.QuantisedLinear)(layer)  # type: ignore[arg-type]
    weight = layer.weight.abs().flatten(1)
    steps = weight.amax(1) / quantisation.WEIGHT_STEPS, (x.max() - x.min()) / 255
    # Every product is off by half a step of either factor, and what is rounded is as large as it gets at most.
    bound = (weight.sum(1).max() * steps[1] + weight.shape[1] * x.abs().max() * steps[0].max()) / 2
    with torch.inference_mode():
        assert 0 < (made(x) - layer(x)).abs().max() < bound * 1.1


def test_eight_bits_on_a_gpu_say_what_to_take() -> None:
    with pytest.raises(UserError, match="--precision 16"):
        quantisation.quantise(tiny_world().to("meta"))


def test_precision_is_chosen_as_asked() -> None:
    assert precision.choose(tiny_world(), "16").low_precision
    assert not precision.choose(tiny_world(), "32").low_precision
    assert precision.choose(tiny_world(), "auto").low_precision == precision.supported("cpu")


@pytest.mark.parametrize("precision_", ["16", "32"])
def test_packed_convolutions_dream_the_same(precision_: str) -> None:
    plain, packed = (precision.choose(tiny_world(recall=True), precision_) for _ in range(2))
    pack(packed)
    assert plain.state_dict().keys() == packed.state_dict().keys()
    frames = torch.randint(0, 256, (2, 6, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    actions, seeds = torch.rand(2, 5, 4).round(), torch.tensor([1, 2])
    pictures = []
    for model in (plain, packed):
        state = model.start(frames, actions, seeds)
        pictures.append(model.step(state, actions[:, 0])[0].frames.float())
    assert (pictures[0] - pictures[1]).abs().max() <= 1


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
        memory = replace(config.memory, inertia=True, exact=True, trail=8, obstacles=True)
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


@pytest.mark.parametrize("bound", [0.0, 0.05, 0.3])
def test_step_caching_keeps_its_bound(bound: float) -> None:
    plain, cached = tiny_world(), caching.cache(tiny_world(), bound)
    kept = cached.dynamics.denoiser
    state, actions = prompted(plain, players=2)
    changes = []
    with torch.inference_mode():
        for action in actions[5:]:
            before = kept.ran, kept.spared
            latents = [model.step_latents(state.clone(), action, steps=8)[0] for model in (plain, cached)]
            assert kept.ran + kept.spared - sum(before) == 8 and kept.ran > before[0]  # nothing from another frame
            changes.append(caching.change(latents[1], latents[0]))
            plain.step(state, action)
    assert max(changes) <= bound
    assert bound or not kept.spared


def test_step_caching_spares_more_with_a_wider_bound() -> None:
    spared = []
    for bound in (0.02, 0.1, 0.9):
        model = caching.cache(tiny_world(), bound)
        state, actions = prompted(model)
        model.step(state, actions[5], steps=16)
        spared.append(model.dynamics.denoiser.spared)
        model.step(state, actions[5], steps=1)
        assert model.dynamics.denoiser.spared == spared[-1]  # a single call has nothing to take over
    assert spared == sorted(spared) and spared[-1] == 15
    with pytest.raises(UserError, match="bound"):
        caching.cache(tiny_world(), 1.5)


def test_pruning_gives_a_smaller_model_that_plays_and_trains(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = tiny_config()
    wide = replace(config, dynamics=replace(config.dynamics, widths=(64, 64), heads=2))
    model = WorldModel(wide).eval().requires_grad_(False)
    for p in model.parameters():
        if not p.abs().sum():
            torch.nn.init.normal_(p, std=0.05)
    for _, block in pruning.blocks(model).values():  # as after training, some channels matter more than others
        scales = torch.tensor([1.0, 0.1, 0.7, 0.2]).repeat_interleave(pruning.GROUP)
        block.conv2.weight *= scales[None, :, None, None]
    latents, actions = torch.randn(2, 12, 4, 8, 8), torch.rand(2, 11, 4).round()
    found = pruning.importance(model, latents, actions)
    assert all(x[0] > x[2] > x[3] and x[2] > x[1] for x in found.values())
    smaller = pruning.prune(model, 0.5, found)
    assert smaller.config.dynamics.hidden == (32, 32)

    def weights(model: WorldModel) -> int:
        return sum(b.conv1.weight.numel() + b.conv2.weight.numel() for _, b in pruning.blocks(model).values())

    assert weights(smaller) == weights(model) / 2

    worse = pruning.prune(model, 0.5, {name: -x for name, x in found.items()})
    state = model.start_latents(latents, actions, torch.arange(2))
    dreams = [m.step_latents(state.clone(), actions[:, 0])[0] for m in (model, smaller, worse)]
    assert caching.change(dreams[1], dreams[0]) < 0.5 * caching.change(dreams[2], dreams[0])

    saved = tiny_checkpoint(tmp_path / "tiny.safetensors")
    loaded = load(saved)
    loaded.model = smaller
    save(saved, loaded)
    again = load(saved).model
    assert again.config == smaller.config
    trained = again.dynamics.requires_grad_(True)
    reading = trained(latents, F.pad(actions, (0, 0, 0, 1)), torch.tensor([9, 11]), torch.zeros(2), latents)
    loss = again.config.objective.loss(reading.predict, reading.goals)[0].mean()
    loss.backward()
    assert all(block.conv1.weight.grad.abs().sum() > 0 for _, block in pruning.blocks(again).values())


def test_the_prune_command(tmp_path: Path) -> None:
    given, out = tmp_path / "tiny.safetensors", tmp_path / "small.safetensors"
    checkpoint = load(tiny_checkpoint(given, prompt=12))
    with pytest.raises(UserError, match="nothing goes"):
        pruning.main([str(given), "--share", "0.1", "--out", str(out)])
    config = checkpoint.model.config
    checkpoint.model = WorldModel(replace(config, dynamics=replace(config.dynamics, hidden=(32, 32))))
    save(given, checkpoint)
    assert pruning.main([str(given), "--share", "0.5", "--out", str(out)]) == 0
    assert load(out).model.config.dynamics.hidden == (16, 16)


@pytest.mark.parametrize("recall", [False, True], ids=["working memory", "episodic memory"])
def test_exported_networks_give_the_same_frames(tmp_path: Path, recall: bool) -> None:
    pytest.importorskip("onnxscript", reason="needs pip install -e '.[export]'")
    runtime = pytest.importorskip("onnxruntime", reason="needs pip install -e '.[export]'")
    model = tiny_world(recall=recall)
    export.export(model, tmp_path)
    run = {name: runtime.InferenceSession(tmp_path / f"{name}.onnx").run for name in ("decoder", "denoiser", "context")}
    state, actions = prompted(model)
    kept = {k: v.numpy() for k, v in state.to_dict().items() if k.startswith("dynamics.")}
    read = ["dynamics.latents", "dynamics.actions", *export.RING]
    for action in actions[5:]:
        noisy = frame_noise(state.seeds, state.dynamics.context.working.count, model.latent_shape).numpy()
        told = {"action": action.numpy(), "noisy": noisy, "level": np.zeros(1, "f"), "stride": np.ones(1, "f")}
        if recall:
            told["drawn"] = model.render_views(state, action)[1].numpy()
        (clean,) = run["denoiser"](None, {**{k: kept[k] for k in read}, **told})
        (frame,) = run["decoder"](None, {"latents": clean})
        reward, termination, *after = run["context"](None, {**kept, "clean": clean, "action": action.numpy()})
        outcome, state = model.step(state, action)
        assert np.abs(frame.astype(int) - outcome.frames.numpy()).max() <= 1
        np.testing.assert_allclose(reward, outcome.rewards, atol=1e-4)
        np.testing.assert_allclose(termination, outcome.terminated, atol=1e-4)
        kept = dict(zip(kept, after))
    # In place of the model's own networks, they dream the same.
    played = onnx.run(tiny_world(recall=recall), tmp_path)
    state, actions = prompted(model)
    dream = state.clone()
    for action in actions[5:]:
        made = played.step(dream, action)[0].frames.int()
        assert (made - model.step(state, action)[0].frames.int()).abs().max() <= 1


def test_export_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match="pip install"):
        export.export(tiny_world(), tmp_path)


@pytest.mark.parametrize("recall", [False, True], ids=["working memory", "episodic memory"])
def test_a_pipelined_model_dreams_the_same(recall: bool) -> None:
    plain, pipelined = tiny_world(recall=recall), tiny_world(recall=recall)
    threads = set()
    layer = next(m for m in pipelined.tokenizer.decoder.modules() if isinstance(m, torch.nn.Conv2d))
    layer.register_forward_pre_hook(lambda *_: threads.add(threading.current_thread()))

    state, actions = prompted(plain, players=2)
    pipelining.pipeline(pipelined)
    other = state.clone()
    for action in actions[5:]:
        frames = plain.step(state, action)[0].frames
        assert torch.equal(pipelined.step(other, action)[0].frames, frames)
    assert threads and threading.main_thread() not in threads
    for name, value in state.to_dict().items():
        assert torch.equal(other.to_dict()[name], value), name


def test_players_join_and_leave_a_batch() -> None:
    model = tiny_world(recall=True)
    states, actions = prompted(model, players=3)
    alone = [states[i : i + 1] for i in range(3)]
    batch, names = Batch(model), {}

    def everybody_plays(action: torch.Tensor, there: list[int]) -> None:
        outcomes = batch.step({names[i]: action[i] for i in there})
        for i in there:
            own, alone[i] = model.step(alone[i], action[i : i + 1])
            assert (outcomes[names[i]].frames.int() - own.frames[0].int()).abs().max() <= 1

    assert batch.step({}) == {}
    names = {i: batch.join(alone[i]) for i in (0, 1)}
    everybody_plays(actions[5], [0, 1])
    left = batch.leave(names[0])
    assert torch.equal(left.dynamics.context.working.count, alone[0].dynamics.context.working.count)
    names[2] = batch.join(alone[2])
    everybody_plays(actions[6], [1, 2])
    names[0] = batch.join(left)
    assert len(set(names.values())) == 3 and batch.players == [names[1], names[2], names[0]]
    everybody_plays(actions[7], [0, 1, 2])
    with pytest.raises(KeyError, match="not in the batch"):
        batch.step({99: actions[7][0]})
    with pytest.raises(ValueError, match="one player"):
        batch.join(states)
