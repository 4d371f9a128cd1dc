"""The ball and the paddles of Pong and Breakout are found in real frames, and told where a dream loses them."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_collect import games
from game_wm.evaluation.rollout import DreamRollout
from game_wm.evaluation.sprites import Find, finder
from game_wm.evaluation.sprites.score import FRAMES, Sprites
from game_wm.evaluation.truth.plays import Truth

# Where the real screen (210 x 160) is searched for a sprite of that colour, whole pixels of it.
EXACT = {
    "Pong": {"ball": ((236, 236, 236), [(34, 194, 0, 160)]), "paddle": ((92, 186, 92), [(34, 194, 140, 144)]),
             "opponent": ((213, 130, 74), [(34, 194, 16, 20)])},
    "Breakout": {"ball": ((200, 72, 72), [(93, 189, 8, 152), (32, 57, 8, 152)]),
                 "paddle": ((200, 72, 72), [(189, 194, 8, 152)])},
}  # fmt: skip
PIXELS = {"ball": 8, "paddle": 64, "opponent": 64}
GAMES = [f"gym:ALE/{name}-v5{size}" for name in EXACT for size in ("", "?width=64&height=64")]


@cache
def played(game_id: str, steps: int = 500) -> tuple[Tensor, list[np.ndarray]]:
    """Frames (N, H, W, 3), and the real screens behind them."""
    env, random = games.make(game_id), np.random.default_rng(3)
    env.reset(seed=5)
    frames, screens, action = [], [], 0
    for step in range(steps):
        if random.random() < 0.25 or step < 8:
            action = int(random.integers(4)) if step >= 8 else 1
        frame, _, terminated, truncated, _ = env.step(action)
        frames.append(frame.copy())
        screens.append(env.unwrapped.env.unwrapped.ale.getScreenRGB())
        if terminated or truncated:
            env.reset(seed=step)
    env.close()
    return torch.from_numpy(np.stack(frames)), screens


def exact(game_id: str, sprite: str) -> np.ndarray:
    """Row, column and number of a sprite's pixels on each real screen (N, 3)."""
    colour, regions = EXACT["Pong" if "Pong" in game_id else "Breakout"][sprite]
    rows = []
    for screen in played(game_id)[1]:
        found = np.zeros(screen.shape[:2], bool)
        for top, bottom, left, right in regions:
            found[top:bottom, left:right] = (screen[top:bottom, left:right] == colour).all(-1)
        ys, xs = np.nonzero(found)
        rows.append((ys.mean() + 0.5, xs.mean() + 0.5, len(ys)) if len(ys) else (np.nan, np.nan, 0))
    return np.array(rows)


def find_in(game_id: str) -> Find:
    find = finder(game_id)
    assert find is not None
    return find


@pytest.mark.parametrize("game_id", GAMES)
def test_sprites_are_found_where_they_are(game_id: str) -> None:
    frames, _ = played(game_id)
    height, width = frames.shape[1:3]
    for sprite, places in find_in(game_id)(frames).items():
        real = exact(game_id, sprite)
        whole = real[:, 2] >= PIXELS[sprite] / 2
        if "Breakout" in game_id and sprite == "ball":  # the ball at the bricks or the paddle may be told or not
            whole &= ((real[:, 0] > 98) & (real[:, 0] < 182)) | (real[:, 0] < 52)
        told = whole | (real[:, 2] == 0)
        assert sprite != "ball" or told.mean() > 0.9
        found = ~places[:, 0].isnan().numpy()
        assert (found == whole)[told].mean() >= 0.99 and whole.sum() > 100
        apart = np.hypot(*(places.numpy() - real[:, :2] * (height / 210, width / 160))[whole & found].T)
        assert np.median(apart) < 1 and (sprite != "ball" or np.quantile(apart, 0.99) < 1.5)


@pytest.mark.parametrize("game_id", GAMES)
def test_a_blurred_ball_is_found_too(game_id: str) -> None:
    frames, _ = played(game_id)
    sharp = find_in(game_id)(frames)["ball"]
    kernel = torch.tensor([0.25, 0.5, 0.25])
    images = F.pad(frames.permute(0, 3, 1, 2).float(), (1, 1, 1, 1), mode="replicate")
    blurred = F.conv2d(images.flatten(0, 1)[:, None], (kernel[:, None] * kernel)[None, None])
    blurred = blurred.unflatten(0, (-1, 3))[:, :, 0].permute(0, 2, 3, 1).to(torch.uint8)
    assert (find_in(game_id)(blurred)["ball"].isnan() == sharp.isnan()).all(1).float().mean() > 0.97


def test_other_games_have_no_finder() -> None:
    assert finder("maze") is None and finder("gym:ALE/Seaquest-v5") is None


class Copying(nn.Module):
    """A tokenizer that loses nothing."""

    def encode(self, frames: Tensor, before: Tensor | None = None) -> Tensor:
        return frames

    decode = encode


def test_a_dream_is_told_what_it_loses() -> None:
    game_id, prompt = GAMES[0], 8
    frames = played(game_id)[0][: 4 * (prompt + FRAMES)].unflatten(0, (4, -1))
    lengths = np.array([FRAMES, FRAMES, FRAMES, 30])
    nothing = np.zeros((4, FRAMES), np.float32)
    truth = Truth((0, 1, 2, 3), prompt, frames, torch.zeros(4, 1, 1), nothing, nothing > 0, lengths, {})
    real = frames[:, prompt:]
    still = real[:, :1].expand_as(real)
    erased = real.clone()
    erased[:, :, 14:73, 10:54] = torch.tensor((144, 72, 17), dtype=torch.uint8)  # all but where the paddles are
    figures = {}
    for name, dreamt in (("perfect", real), ("still", still), ("erased", erased)):
        score = Sprites(find_in(game_id))
        score.add(Copying(), truth, DreamRollout(dreamt, nothing, nothing))
        figures[name] = score.result()
    perfect, still_, erased_ = figures["perfect"], figures["still"], figures["erased"]
    assert perfect["ball"]["kept"] == perfect["ball"]["tokenised"] == perfect["paddle"]["follows"] == 1
    assert perfect["ball"]["game"] == perfect["ball"]["dream"] > 0.2
    assert perfect["ball"]["error"]["17-64"] == 0 < still_["ball"]["error"]["17-64"]
    assert still_["paddle"]["follows"] < 0.1 and "follows" not in still_["ball"]
    assert erased_["ball"]["kept"] < 0.3 and erased_["paddle"]["kept"] == erased_["ball"]["tokenised"] == 1
    low, high = erased_["ball"]["kept_interval"]
    assert low <= erased_["ball"]["kept"] <= high
