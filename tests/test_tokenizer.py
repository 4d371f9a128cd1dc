"""Tokenizers: how small a frame gets, what comes back of it, and what a frame may lean on."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_config
from torch import Tensor

from data_collect.errors import UserError
from game_wm.evaluation import metrics
from game_wm.evaluation.feature_distance import FeatureDistance
from game_wm.evaluation.rollout import in_threes
from game_wm.model.tokenizer import Shortcut, Tokenizer, TokenizerConfig, earlier
from game_wm.world import WorldConfig, WorldModel
from train.__main__ import main
from train.checkpoints import load_tokenizer
from train.data import encode
from train.data.frames import CachedFrames, PooledFrames
from train.data.recordings import Recording
from train.lab.bench import reconstruction
from train.stages.tokenizer import TokenizerModule

SMALL = (16, 16, 32, 32, 32)
KINDS: dict[str, dict[str, Any]] = {
    "8": {},
    "16": {"encoder_widths": SMALL[:4], "decoder_widths": SMALL[:4], "shortcuts": True, "channels": 16},
    "32": {"encoder_widths": SMALL, "decoder_widths": SMALL, "shortcuts": True, "channels": 64},
    "temporal": {"temporal": True},
    "light": {"decoder_widths": (16, 16, 16), "decoder_blocks": 1},
    "detail": {"encoder_widths": (16, 16, 32), "decoder_widths": (16, 16, 32, 32), "channels": 16},
    "codes": {"levels": (8, 5, 5, 5)},
}


def config(kind: str, side: int = 64) -> TokenizerConfig:
    sizes = {"channels": 4, "encoder_widths": SMALL[:3], "decoder_widths": SMALL[:3], "decoder_blocks": 1}
    return TokenizerConfig(side, side, **{**sizes, **KINDS[kind]})


def pictures(count: int, time: int = 3, side: int = 64) -> Tensor:
    """uint8 (count, time, side, side, 3): two colours, and an edge between them that moves to the right."""
    random = np.random.default_rng(0)
    frames = np.empty((count, time, side, side, 3), np.uint8)
    for row in frames:
        row[:], colour, edge = (
            random.integers(0, 256, 3),
            random.integers(0, 256, 3),
            random.integers(4, side - 4 * time),
        )
        for t, frame in enumerate(row):
            frame[:, edge + 4 * t :] = colour
    return torch.from_numpy(frames)


@pytest.mark.parametrize(
    ("kind", "pixels"), [("8", 8), ("16", 16), ("32", 32), ("temporal", 8), ("light", 8), ("detail", 16), ("codes", 8)]
)
def test_a_frame_has_as_many_tokens_as_it_has_squares_of_so_many_pixels(kind: str, pixels: int) -> None:
    tokenizer = Tokenizer(config(kind)).eval()
    frames = pictures(2)
    latents = tokenizer.encode(frames[:, 1], frames[:, 0])
    assert tokenizer.config.factor == pixels and tokenizer.config.grid == (64 // pixels, 64 // pixels)
    assert latents.shape == (2, tokenizer.config.channels, *tokenizer.config.grid)
    assert tokenizer.decode(latents, latents).shape == (2, 64, 64, 3)
    assert tokenizer(Tokenizer.to_unit(frames if kind == "temporal" else frames[:, -1:])).shape == (2, 3, 64, 64)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["32", "temporal", "detail", "codes"])
def test_what_comes_back_beats_a_blur(kind: str) -> None:
    """Forty steps on eight frames, and they are nearer than what blur leaves of them, their mean colour."""
    torch.manual_seed(0)
    module = TokenizerModule(config(kind, side=32), perceptual=0.0, edges=0.0)
    module.log_dict = lambda *_, **__: None  # type: ignore[method-assign,assignment]
    frames = pictures(8, side=32)
    batch = frames if kind == "temporal" else frames[:, -1]
    optimiser = torch.optim.AdamW(module.parameters(), 1e-2)
    for step in range(40):
        optimiser.param_groups[0]["lr"] = 1e-2 * min(1, step / 10) * (1 - step / 40)
        optimiser.zero_grad()
        module.training_step(batch, step).backward()
        optimiser.step()
    with torch.no_grad():
        truth, drawn = module.reconstruct(batch)
    blurred = truth.mean((2, 3), keepdim=True).expand_as(truth)
    error, blur = ((x - truth).square().mean() for x in (drawn, blurred))
    assert error < 0.95 * blur


@pytest.mark.parametrize("kind", ["8", "temporal"])
def test_latents_are_shifted_and_halved_with_their_pictures(kind: str) -> None:
    torch.manual_seed(0)
    module, said = TokenizerModule(config(kind, 32), perceptual=0.0, equivariance=0.5, halved=0.5), dict[str, Any]()
    module.log = said.__setitem__  # type: ignore[method-assign,assignment]
    module.log_dict = lambda values, **_: said.update(values)  # type: ignore[method-assign,assignment]
    frames = pictures(8, side=32)
    module.training_step(frames if kind == "temporal" else frames[:, -1], 0).backward()
    assert said["halved"] > 0 and said["loss"].isfinite()
    assert all(p.grad is not None for p in module.parameters())
    with pytest.raises(UserError, match="two by two cells"):
        TokenizerModule(replace(config(kind, 32), width=40), perceptual=0.0, halved=0.5)


def test_a_shortcut_keeps_what_goes_in() -> None:
    """Without its layer: four pixels to their channels' means, and back to four equal pixels."""
    x = torch.randn(2, 8, 4, 4)
    down, up = Shortcut(torch.nn.Conv2d(8, 4, 4, 2, 1)), Shortcut(torch.nn.Conv2d(4, 32, 1))
    for module in (down, up):
        torch.nn.init.zeros_(module.layer.weight)
        torch.nn.init.zeros_(module.layer.bias)
    halved = down(x)
    assert torch.allclose(halved, x.unflatten(1, (4, 2)).mean(2).unflatten(2, (2, 2)).unflatten(4, (2, 2)).mean((3, 5)))
    doubled = torch.nn.functional.pixel_shuffle(up(halved), 2)
    assert torch.equal(doubled[:, :4, ::2, ::2], halved.repeat_interleave(2, 1)[:, :4])
    with pytest.raises(ValueError, match="must be a multiple of the next one"):
        TokenizerConfig(encoder_widths=(32, 64, 96), shortcuts=True)
    with pytest.raises(ValueError, match="or more to add detail"):
        TokenizerConfig(decoder_widths=(32, 64))


# --- temporal ---------------------------------------------------------------------------------------------------------


def test_a_temporal_frame_is_drawn_from_its_latent_and_the_one_before_alone() -> None:
    torch.manual_seed(0)
    tokenizer = Tokenizer(config("temporal")).eval()
    for p in tokenizer.parameters():
        p.data += 0.05 * torch.randn_like(p)
    frames = pictures(1, 6)
    latents = tokenizer.encode(frames[0], earlier(frames)[0])[None]
    drawn = tokenizer.decode_images(latents[0], earlier(latents)[0])
    row = tokenizer(Tokenizer.to_unit(frames[:, 1:4]))
    assert torch.allclose(row[0], drawn[3], atol=1e-5)  # what training draws is what play does
    later = latents.clone()
    later[:, 4] += 1
    changed = (tokenizer.decode_images(later[0], earlier(later)[0]) - drawn).abs().amax((1, 2, 3))
    assert (changed > 1e-3).tolist() == [False, False, False, False, True, True]
    first = tokenizer.encode(frames[0, :1])
    assert torch.allclose(first, latents[0, :1], atol=1e-5)  # an episode's first frame is its own past


def test_a_temporal_world_plays_what_its_latents_say() -> None:
    base = tiny_config()
    torch.manual_seed(0)
    world = WorldModel(replace(base, tokenizer=replace(base.tokenizer, temporal=True))).eval().requires_grad_(False)
    for p in world.parameters():
        p.data += 0.05 * torch.randn_like(p)
    frames, actions = pictures(1, 5), torch.rand(1, 6, 4).round()
    state = world.start(frames, actions[:, :4], torch.tensor([1]))
    wanted = world.encode(frames[0], earlier(frames)[0])
    assert torch.allclose(state.dynamics.latents[0], wanted[-4:], atol=1e-5)
    for t in (4, 5):
        before = state.dynamics.latents[:, -1].clone()
        outcome, state = world.step(state, actions[:, t])
        assert torch.equal(outcome.frames, world.decode(state.dynamics.latents[:, -1], before))
    assert WorldConfig.from_dict(world.config.to_dict()) == world.config
    with pytest.raises(ValueError, match="single frames, and a temporal tokenizer cannot encode"):
        replace(tiny_config(recall=True), tokenizer=world.config.tokenizer)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["8", "temporal", "detail"])
def test_a_reconstruction_is_what_play_shows_of_a_frame(kind: str) -> None:
    torch.manual_seed(0)
    tokenizer = Tokenizer(config(kind)).eval().requires_grad_(False)
    frames = pictures(2, 5)
    latents = tokenizer.encode(frames.flatten(0, 1), earlier(frames).flatten(0, 1)).unflatten(0, (2, 5))
    shown = tokenizer.decode(latents.flatten(0, 1), earlier(latents).flatten(0, 1)).unflatten(0, (2, 5))[:, ::2]
    error = metrics.squared_error(frames[:, ::2].flatten(0, 1), shown.flatten(0, 1))
    rows = in_threes(frames, 2)
    found = reconstruction.reconstruction(tokenizer, rows, torch.zeros_like(rows[:, -1]), FeatureDistance())
    assert found["reconstruction_psnr"] == pytest.approx(metrics.pooled_psnr(error), abs=1e-3)
    assert found["reconstruction_psnr_moving"] == pytest.approx(found["reconstruction_psnr"], abs=1)  # most moves
    assert found["tokens_per_frame"] == (16 if kind == "detail" else 64)


# --- from a recording -------------------------------------------------------------------------------------------------

LAB = Path(__file__).parent.parent / "configs" / "lab"
TINY = ["--model.perceptual", "0", "--data.batch_size", "8", "--model.tokenizer.decoder_blocks", "1", "--wandb", "off"]


@pytest.mark.parametrize("kind", [CachedFrames, PooledFrames])
def test_frames_come_behind_those_before_them(kind: Any, recording: Path) -> None:
    source = kind([Recording(recording)], 0, 0.3, *([100] if kind is PooledFrames else []))
    episodes = [source.read(np.arange(40 * i, 40 * i + 40)) for i in range(9)]
    source.row = 3
    for row in np.concatenate((source.items(np.arange(30)), source.validation(10))):
        place = [(e, t) for e, frames in enumerate(episodes) for t in np.nonzero((frames == row[2]).all((1, 2, 3)))[0]]
        assert any(all((episodes[e][max(0, t - 2 + i)] == row[i]).all() for i in (0, 1)) for e, t in place)


@pytest.mark.slow
def test_a_lab_tokenizer_trains_encodes_and_is_measured(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconstruction, "TIMED", 3)
    places = []
    for name, levels in (("temporal", 3), ("32", 5)):
        widths = json.dumps([16] * levels)
        flags = ["--config", str(LAB / f"tokenizer-{name}.yaml"), "--runs", str(tmp_path), "--minutes", "null", *TINY]
        flags += ["--model.tokenizer.encoder_widths", widths, "--model.tokenizer.decoder_widths", widths]
        assert main(["tokenizer", *flags, "--steps", "2", "--data.data", f"[{recording}]"]) == 0
        places.append(str(tmp_path / f"tokenizer-{name}" / "tokenizer" / "last.ckpt"))
    tokenizer, out = load_tokenizer(places[0]), tmp_path / "latents"
    encode.encode([str(recording)], tokenizer, out)
    frames = torch.from_numpy(Recording(recording).dataset.episode(0).frames)
    with torch.no_grad():
        wanted = tokenizer.encode(frames, earlier(frames[None])[0])
    assert np.allclose(np.load(out / "latents-00000.npy")[:40], wanted, atol=0.1)
    capsys.readouterr()
    command = ["bench", "reconstruction", *places, "--data", str(recording), "--frames", "8"]
    assert main([*command, "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert [(row["tokens_per_frame"], row["channels"]) for row in table.values()] == [(64, 8), (4, 256)]
    assert all(row["reconstruction_psnr"] > 5 and row["sharpness"] >= 0 for row in table.values())
    assert all(row["feature_distance"] > 0 and row["ms_to_decode"] > 0 for row in table.values())
    assert main(command) == 0 and "ms to decode" in capsys.readouterr().out
    with pytest.raises(UserError, match="does not exist"):
        main(["bench", "reconstruction", "nothing.ckpt", "--data", str(recording)])
    flags = [
        "--config",
        str(LAB.parent / "maze" / "dynamics.yaml"),
        "--data.latents",
        str(out),
        "--model.tokenizer",
        places[0],
    ]
    with pytest.raises(UserError, match="decodes no single frames"):
        main(["dynamics", *flags, "--steps", "1", "--model.pixels", "1", "--data.length", "16"])
