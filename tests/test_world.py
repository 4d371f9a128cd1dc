"""The functional core: state is all there is, players are slices, a file is the model, the dream is an environment."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import tiny_checkpoint, tiny_world

from data_collect.errors import UserError
from game_wm import pictures
from game_wm.checkpoint import load, save
from game_wm.env import DreamEnv
from game_wm.evaluation.metrics import psnr
from game_wm.play import gallery
from game_wm.state import WorldState
from game_wm.world import WorldModel, frame_noise


@pytest.fixture(scope="module", params=[False, True], ids=["working memory", "episodic memory"])
def world(request: pytest.FixtureRequest) -> WorldModel:
    return tiny_world(recall=request.param)


def prompt(world: WorldModel, players: int = 3, frames: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    pixels = torch.randint(0, 256, (players, frames, 64, 64, 3), dtype=torch.uint8, generator=generator)
    return pixels, torch.rand(players, frames - 1, 4, generator=generator).round(), torch.arange(players) + 7


def play(world: WorldModel, state: WorldState, frames: int, first: int = 0) -> torch.Tensor:
    """Latents (frames, B, ...) under a fixed action sequence."""
    made = []
    for t in range(first, first + frames):
        action = torch.rand(len(state), 4, generator=torch.Generator().manual_seed(t)).round()
        made.append(world.step_latents(state, action[:1].expand(len(state), 4))[0])
    return torch.stack(made)


@pytest.mark.slow
def test_state_saved_and_loaded_gives_the_same_next_100_frames(world: WorldModel, tmp_path: Path) -> None:
    state = world.start(*prompt(world))
    play(world, state, 10)
    save_file(state.to_dict(), tmp_path / "dream.safetensors")
    again = WorldState.from_dict(load_file(tmp_path / "dream.safetensors"))
    assert torch.equal(play(world, state, 100, 10), play(world, again, 100, 10))


def test_a_branch_leaves_the_original_alone(world: WorldModel) -> None:
    state = world.start(*prompt(world))
    branch = state.clone()
    play(world, branch, 5)
    expected = play(world, world.start(*prompt(world)), 5)
    assert torch.equal(play(world, state, 5), expected)


def test_players_are_slices(world: WorldModel) -> None:
    state = world.start(*prompt(world))
    parts = [state[0:1], state[1:3]]
    together = play(world, state, 6)
    apart = torch.cat([play(world, part, 6) for part in parts], dim=1)
    # A drawn picture has 8 bits: where a value lies between two of them, the last bit of a float decides.
    assert (together - apart).abs().max() < (0.05 if world.memory.config else 1e-4)
    assert (together - apart).abs().mean() < 1e-3
    joined = WorldState.cat(parts)
    assert {k: v.shape for k, v in joined.to_dict().items()} == {k: v.shape for k, v in state.to_dict().items()}


def test_every_field_has_the_player_first_and_never_grows(world: WorldModel) -> None:
    state = world.start(*prompt(world))
    size = state.nbytes
    play(world, state, 30)
    assert state.nbytes == size
    assert all(len(x) == 3 for x in state.to_dict().values())


def test_noise_is_a_function_of_seed_and_frame() -> None:
    a = frame_noise(torch.tensor([1, 2]), torch.tensor([5, 5]), (3,))
    b = frame_noise(torch.tensor([2, 1]), torch.tensor([5, 6]), (3,))
    assert torch.equal(a[1], b[0])
    assert not torch.equal(a[0], b[1])


def test_wrong_shapes_are_refused(world: WorldModel) -> None:
    frames, actions, seeds = prompt(world)
    with pytest.raises(ValueError, match="actions of shape"):
        world.start(frames, actions[:, 1:], seeds)
    with pytest.raises(ValueError, match="frames of 64x64"):
        world.start(frames[:, :, :32], actions, seeds)
    with pytest.raises(ValueError, match="shape"):
        world.step(world.start(frames, actions, seeds), torch.zeros(3, 2))


def test_checkpoint_round_trip_plays_the_same(tmp_path: Path) -> None:
    first = load(tiny_checkpoint(tmp_path / "a.safetensors"))
    save(tmp_path / "b.safetensors", first)
    second = load(tmp_path / "b.safetensors")
    assert second.schema == first.schema
    assert (second.game, second.name, second.trained) == ("maze", "tiny", {"frames": 0})
    states = [c.model.start(c.contexts_frames, c.contexts_actions, torch.arange(3)) for c in (first, second)]
    assert torch.equal(play(first.model, states[0], 100), play(second.model, states[1], 100))


def test_long_prompts_are_kept_as_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is more than is stored as it is comes back nearly the same, poses and all, and is chosen by its picture."""
    first = load(tiny_checkpoint(tmp_path / "a.safetensors"))
    column = torch.linspace(0, 6, 64)
    waves = (128 + 100 * (column[:, None] + torch.arange(15)[:, None, None] / 3).sin() * column.cos()).byte()
    frames = waves[..., None].expand(-1, -1, -1, 3).unflatten(0, (3, 5)).contiguous()
    long = replace(first, contexts_frames=frames, contexts_poses=torch.randn(3, 5, 3))
    monkeypatch.setattr(pictures, "RAW_BYTES", 1000)
    save(tmp_path / "long.safetensors", long)
    found = load(tmp_path / "long.safetensors")
    assert found.contexts_poses is not None and torch.equal(found.contexts_poses, long.contexts_poses)  # type: ignore[arg-type]
    assert found.contexts_frames.shape == frames.shape
    assert float(psnr(found.contexts_frames.flatten(0, 1), frames.flatten(0, 1)).min()) > 34
    shown = {tile.name: torch.from_numpy(tile.frames) for tile in gallery.checkpoints([tmp_path])}
    assert torch.equal(shown["long"], found.contexts_frames[0])
    assert torch.equal(shown["a"], first.contexts_frames[0])
    tensors = load_file(tmp_path / "long.safetensors")
    for name, value in {
        "sizes": tensors["contexts.sizes"] - 1,
        "frames": torch.zeros_like(tensors["contexts.frames"]),
    }.items():
        with safe_open(tmp_path / "long.safetensors", "pt") as file:
            metadata = {key: words for key, words in file.metadata().items() if key != "sha256"}
        save_file(tensors | {f"contexts.{name}": value}, tmp_path / "broken.safetensors", metadata)
        with pytest.raises(UserError, match=r"broken\.safetensors"):
            load(tmp_path / "broken.safetensors")


def test_the_same_model_is_the_same_file(tmp_path: Path) -> None:
    files = [tiny_checkpoint(tmp_path / f"{i}.safetensors").read_bytes() for i in range(8)]
    assert all(file == files[0] for file in files)


@pytest.mark.parametrize("damage", ["missing", "text", "cut", "foreign"])
def test_a_file_that_is_no_checkpoint_is_one_sentence(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "broken.safetensors"
    if damage == "text":
        path.write_text("not a checkpoint at all")
    elif damage == "cut":
        path.write_bytes(tiny_checkpoint(tmp_path / "whole.safetensors").read_bytes()[:5000])
    elif damage == "foreign":
        save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"broken\.safetensors"):
        load(path)


def rewritten(path: Path, metadata: dict[str, str | None] | None = None, **tensors: torch.Tensor) -> Path:
    """A tiny checkpoint from before there was a hash, with other metadata (None: without) and other contexts."""
    content = load_file(tiny_checkpoint(path)) | {f"contexts.{name}": value for name, value in tensors.items()}
    with safe_open(path, "pt") as file:
        fields = {**file.metadata(), "sha256": None, **(metadata or {})}
    save_file(content, path, {name: words for name, words in fields.items() if words is not None})
    return path


def test_a_checkpoint_is_checked_against_its_hash(tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path / "tiny.safetensors")
    whole = path.read_bytes()
    middle = len(whole) // 2
    assert any(whole[middle : middle + 1000])
    path.write_bytes(whole[:middle] + bytes(1000) + whole[middle + 1000 :])
    with pytest.raises(UserError, match=r"tiny\.safetensors: not a whole .*differs from its hash.*copy or export it"):
        load(path)
    path.write_bytes(whole.replace(b'"fps\\": 20', b'"fps\\": 10'))
    with pytest.raises(UserError, match="differs from its hash"):  # what it says of itself as well
        load(path)
    assert load(rewritten(path)).name == "tiny"


FRAMES, ACTIONS = torch.zeros(2, 3, 64, 64, 3, dtype=torch.uint8), torch.zeros(2, 2, 4)


@pytest.mark.parametrize(
    ("frames", "actions", "words"),
    [
        (FRAMES[:0], ACTIONS[:0], "beginning for training"), (FRAMES[:, :0], ACTIONS, "actions are"),
        (FRAMES[:, :, :32], ACTIONS, "frames are"), (FRAMES.float(), ACTIONS, "frames are"),
        (FRAMES[0], ACTIONS, "frames are"), (FRAMES, ACTIONS[:1], "actions are"),
        (FRAMES, ACTIONS[:, :1], "actions are"), (FRAMES, ACTIONS[..., :3], "actions are"),
        (FRAMES, ACTIONS.int(), "actions are"),
    ],
)  # fmt: skip
def test_contexts_that_do_not_fit_are_refused(
    tmp_path: Path, frames: torch.Tensor, actions: torch.Tensor, words: str
) -> None:
    content = {"frames": frames.contiguous(), "actions": actions.contiguous()}
    with pytest.raises(UserError, match=rf"odd\.safetensors: .*{words}"):
        load(rewritten(tmp_path / "odd.safetensors", **content))


@pytest.mark.parametrize(
    "metadata",
    [
        {"schema": '{"kind": "discrete"}'}, {"schema": '{"kind": "discrete", "names": ["a", "b"], "fps": 20}'},
        {"schema": "[" * 100_000}, {"config": '{"tokenizer": []}'}, {"trained": None},
    ],
)  # fmt: skip
def test_metadata_that_is_none_is_refused(tmp_path: Path, metadata: dict[str, str | None]) -> None:
    with pytest.raises(UserError, match=r"odd\.safetensors: not a whole game_wm checkpoint"):
        load(rewritten(tmp_path / "odd.safetensors", metadata))


def test_the_dream_is_a_gymnasium_environment(tmp_path: Path) -> None:
    env = DreamEnv(tiny_checkpoint(tmp_path / "tiny.safetensors"))
    check_env(env, skip_render_check=True)
    first, info = env.reset(seed=4)
    assert info["context"] == 1
    trace = [env.step(np.array([1, 0, 0, 1]))[0] for _ in range(5)]
    again, _ = env.reset(seed=4)
    assert np.array_equal(first, again)
    assert all(np.array_equal(a, env.step(np.array([1, 0, 0, 1]))[0]) for a in trace)
