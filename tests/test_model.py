"""The network: cached equals uncached, the window is a window, the objective's defining properties."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_config

from game_wm.checkpoint import load
from game_wm.library import SHIPPED, playable
from game_wm.memory.compressed import compress
from game_wm.memory.first_person.geometry import MemoryConfig
from game_wm.memory.recurrent import CHUNK, GatedDelta, scan
from game_wm.model import context
from game_wm.model.attention import attend, attend_in_window, rotate, window_mask
from game_wm.model.config import DynamicsConfig
from game_wm.model.context import expected_reward, two_hot
from game_wm.model.dynamics import Dynamics
from game_wm.model.tokenizer import Tokenizer, TokenizerConfig
from game_wm.objectives.flow import FlowMatching, advance, mix
from game_wm.world import WorldConfig

KINDS: dict[str, dict[str, Any]] = {
    "window": {},
    "sink": {"sink": 2},
    "grouped": {"kv_heads": 1},
    "sparse": {"attention": "sparse", "window": 16, "block": 4, "top": 1, "bottleneck_window": 8},
    "linear": {"attention": "linear"},
    "recurrent": {"recurrent": True},
    "compressed": {"compressed": 2},
    "views": {"recall": True, "warp": True},
}


@pytest.fixture(params=KINDS)
def dynamics(request: pytest.FixtureRequest) -> Dynamics:
    """A small network whose zero-initialised layers are not zero, so that every path is exercised."""
    torch.manual_seed(0)
    model = Dynamics(replace(tiny_config().dynamics, **KINDS[request.param]))
    for p in model.parameters():
        if not p.detach().abs().sum():
            torch.nn.init.normal_(p, std=0.1)
    return model.eval().requires_grad_(False)


def sequences(dynamics: Dynamics, time: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    c = dynamics.config
    torch.manual_seed(1)
    return torch.randn(batch, time, c.channels, c.height, c.width), torch.randn(batch, time, c.actions)


@pytest.mark.parametrize("prompt", [1, 3, 8, 21])
def test_cached_generation_equals_uncached(dynamics: Dynamics, prompt: int) -> None:
    latents, actions = sequences(dynamics, prompt + 1)
    noise = torch.randn_like(latents[:, 0])
    objective = FlowMatching()
    state = dynamics.start(latents[:, :prompt], actions[:, : prompt - 1])
    seen = torch.randn(2, 1, dynamics.denoiser.view_channels, 8, 8) if dynamics.config.views else None
    now = None if seen is None else seen[:, 0]
    cached = dynamics.generate(state, actions[:, prompt - 1], noise, 2, objective, now)
    quiet = torch.zeros(len(latents))
    predict = dynamics(latents, actions, torch.tensor([prompt]), quiet, latents, seen).predict
    uncached = objective.sample(predict, noise[:, None], 2)[:, 0]
    assert (cached - uncached).abs().max() < 1e-4


@pytest.mark.parametrize("part", [256, 7])
def test_frame_by_frame_equals_prompt_at_once_beyond_the_window(
    dynamics: Dynamics, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "PART", part)
    time = dynamics.config.window * 2 + 3
    latents, actions = sequences(dynamics, time)
    whole = dynamics.start(latents, actions[:, :-1])
    steps = dynamics.start(latents[:, :2], actions[:, :1])
    for t in range(2, time):
        dynamics.encode_context(steps, latents[:, t], actions[:, t - 1])
    for name in ("latents", "actions"):
        assert torch.equal(getattr(whole, name), getattr(steps, name))
    for a, b in ((whole.context.working, steps.context.working), (whole.bottleneck, steps.bottleneck)):
        assert torch.equal(a.count, b.count)
        assert (a.keys - b.keys).abs().max() < 1e-4
        assert (a.values - b.values).abs().max() < 1e-4
        assert not a.sums.numel() or (a.sums - b.sums).abs().max() < 1e-4
    if dynamics.config.has_recurrent:
        assert whole.context.recurrent is not None and steps.context.recurrent is not None
        assert (whole.context.recurrent.states - steps.context.recurrent.states).abs().max() < 1e-4


@pytest.mark.parametrize(("queries", "keys"), [(5, 5), (40, 40), (23, 30), (1, 9)])
def test_attention_in_parts_is_attention_with_a_mask(queries: int, keys: int) -> None:
    q, k, v = torch.randn(2, 3, queries, 8), torch.randn(2, 3, keys, 8), torch.randn(2, 3, keys, 8)
    time = torch.arange(100, 100 + keys)
    whole = attend(q, k, v, window_mask(time[-queries:], time, 8))
    assert torch.allclose(attend_in_window(q, k, v, time[-queries:], time, 8), whole, atol=1e-6)


@pytest.mark.parametrize("kind", [{"sink": 2}, {"attention": "sparse", "block": 4, "top": 4}], ids=["sink", "sparse"])
def test_what_leaves_nothing_out_is_full_attention(kind: dict[str, Any]) -> None:
    """As long as nothing has left the window, and every block is among the best."""
    torch.manual_seed(0)
    full = Dynamics(replace(tiny_config().dynamics, window=16)).eval().requires_grad_(False)
    for p in full.parameters():
        torch.nn.init.normal_(p, std=0.1)
    other = Dynamics(replace(full.config, **kind)).eval().requires_grad_(False)
    other.load_state_dict(full.state_dict())
    latents, actions = sequences(full, 14)
    assert (full.context(latents, actions) - other.context(latents, actions)).abs().max() < 1e-5
    longer = sequences(full, 24)
    assert (full.context(*longer) - other.context(*longer)).abs().max() > 1e-3


def test_compressed_history_is_means_of_older_and_older_frames() -> None:
    latents = torch.arange(16.0).view(1, 16, 1, 1, 1).expand(1, 16, 1, 8, 8) + torch.rand(8, 8)
    seen = compress(latents, whole=4, levels=2)
    assert torch.equal(seen[:, 2:], latents[:, -4:])
    assert torch.allclose(seen.mean((2, 3, 4))[0], torch.tensor([3.5, 9.5, 12, 13, 14, 15]) + 0.5, atol=0.2)
    assert torch.equal(seen[0, 1, 0, ::2, ::2], seen[0, 1, 0, 1::2, 1::2]) and len(seen[0, 0].unique()) == 4


def test_recurrent_memory_brings_back_what_was_written_under_a_key() -> None:
    """Ten keys and values, then noise under other keys; queried by the keys, the state gives the values."""
    torch.manual_seed(0)
    layer = GatedDelta(32, 1).requires_grad_(False)
    time, known = 3 * CHUNK + 5, 10
    k = torch.linalg.qr(torch.randn(32, 32))[0]
    keys = torch.cat((k[:known], k[known:][torch.randint(32 - known, (time - known,))]))
    values = torch.randn(time, 32)
    never, always = torch.zeros(time), torch.ones(time)
    _, state = scan(keys, keys, values, never, always)
    assert torch.allclose(state @ k[:known].T, values[:known].T, atol=1e-4)
    last = {int(i): t for t, i in enumerate((keys @ k.T).argmax(1).tolist())}  # what is written again replaces
    assert torch.allclose(state @ k.T, torch.stack([values[last[i]] for i in sorted(last)], 1), atol=1e-4)
    _, faded = scan(keys, keys, values, never - 0.1, always)
    assert faded.norm() < 0.9 * state.norm() and layer(torch.randn(1, 4, 2, 32))[0].abs().max() == 0


def test_the_context_stream_is_causal(dynamics: Dynamics) -> None:
    latents, actions = sequences(dynamics, 6)
    before = dynamics.context(latents, actions)
    latents[:, 4:] += 1
    after = dynamics.context(latents, actions)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4], after[:, 4])


def test_rotation_depends_on_the_difference_of_positions_only() -> None:
    q, k = torch.randn(2, 8)
    near = rotate(q, torch.tensor(105)) @ rotate(k, torch.tensor(100))
    far = rotate(q, torch.tensor(1_000_005)) @ rotate(k, torch.tensor(1_000_000))
    assert abs(near - far) < 1e-4


@pytest.mark.slow
def test_a_network_trained_on_32_frames_runs_on_128() -> None:
    """The same weights with a window of 128: no position is learnt, and what is read depends on how far away it is."""
    torch.manual_seed(0)
    short = Dynamics(replace(tiny_config(side=32).dynamics, window=32))
    for p in short.parameters():
        torch.nn.init.normal_(p, std=0.1)
    latents, actions = sequences(short, 129, batch=1)
    optimiser = torch.optim.SGD(short.parameters(), 1e-3)
    reading = short(latents[:, :32], actions[:, :32], torch.arange(4, 32), torch.zeros(1), latents[:, :32])
    FlowMatching().loss(reading.predict, reading.goals)[0].mean().backward()
    optimiser.step()
    long = Dynamics(replace(short.config, window=128))
    long.load_state_dict(short.state_dict())
    noise, quiet, last = torch.randn_like(latents[:, 0]), torch.zeros(1), torch.tensor([128])
    with torch.no_grad():
        whole = long.context(latents, actions)
        assert (whole[:, :32] - short.context(latents[:, :32], actions[:, :32])).abs().max() < 1e-5
        assert (long.context(latents, actions, first=5000) - whole).abs().max() < 1e-4
        assert whole[:, 32:].std() < 1.5 * whole[:, :32].std()
        state = long.start(latents[:, :128], actions[:, :127])
        made = long.generate(state, actions[:, 127], noise, 1, FlowMatching())
        uncached = FlowMatching().sample(long(latents, actions, last, quiet, latents).predict, noise[:, None], 1)[:, 0]
        assert made.isfinite().all() and (made - uncached).abs().max() < 1e-4
        latents[:, 0] += 1  # 127 frames ago: in reach of the one and not of the other
        reached = [(d.context(latents, actions)[:, 127] - d.context(latents[:, 1:], actions[:, 1:])[:, 126]) for d in
                   (long, short)]  # fmt: skip
    assert reached[0].abs().max() > 1e-4 > reached[1].abs().max()


def test_window_mask() -> None:
    time = torch.arange(5)
    assert window_mask(time, time, 2).sum(1).tolist() == [1, 2, 2, 2, 2]
    assert window_mask(time, time, 2, strict=True).sum(1).tolist() == [0, 1, 2, 2, 2]


def test_two_hot_rewards_survive_the_round_trip() -> None:
    rewards = torch.tensor([0.0, 1.0, -1.0, 0.37, -20.0, 100.0])
    weights = two_hot(rewards)
    assert torch.allclose(weights.sum(-1), torch.ones(6))
    assert torch.allclose(expected_reward(weights.clamp_min(1e-12).log()), rewards, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 8])
def test_the_sampler_recovers_a_known_clean_latent(steps: int) -> None:
    clean, noise = torch.randn(2, 3, 3, 4, 4, 4).unbind(0)
    sampled = FlowMatching().sample(lambda noisy, level, stride, part: clean[:, part], noise, steps)
    assert torch.allclose(sampled, clean, atol=1e-5)


def test_a_gaussian_is_sampled_with_the_right_moments() -> None:
    """For data N(m, s^2) the best prediction is known in closed form; many steps must give back mean and deviation."""
    torch.manual_seed(0)
    m, s = 1.5, 0.5

    def best(x: torch.Tensor, level: torch.Tensor, stride: torch.Tensor, part: slice) -> torch.Tensor:
        t = level[:, :, None, None, None]
        variance = (1 - t) ** 2 + (t * s) ** 2
        return m + t * s**2 / variance * (x - t * m)

    sampled = FlowMatching().sample(best, torch.randn(4000, 1, 1, 1, 1), 128)
    assert abs(sampled.mean() - m) < 0.05
    assert abs(sampled.std() - s) < 0.05


def test_a_perfect_predictor_has_no_loss_at_any_step_size() -> None:
    torch.manual_seed(0)
    clean = torch.randn(2, 8, 3, 4, 4)
    errors, _ = FlowMatching(finest=8, bootstrap=0.5).loss(lambda x, level, stride, part: clean[:, part], clean)
    assert errors.shape == (2, 8)
    assert errors.max() < 1e-9


def test_steps_walk_the_straight_path() -> None:
    noise, clean = torch.randn(2, 1, 1, 2, 2, 2).unbind(0)
    quarter = torch.full((1, 1), 0.25)
    stepped = advance(mix(noise, clean, quarter), clean, quarter, quarter)
    assert torch.allclose(stepped, mix(noise, clean, quarter * 2), atol=1e-6)


def test_tokenizer_shapes_and_statistics() -> None:
    tokenizer = Tokenizer(TokenizerConfig(32, 48, 4, (16, 16, 32), (16, 16, 32)))
    frames = torch.randint(0, 256, (3, 32, 48, 3), dtype=torch.uint8)
    latents = tokenizer.encode(frames)
    assert latents.shape == (3, 4, 4, 6)
    assert tokenizer.decode(latents).shape == frames.shape
    assert torch.equal(Tokenizer.to_frames(Tokenizer.to_unit(frames)), frames)
    for _ in range(2000):
        tokenizer.track(torch.randn(8, 4, 4, 6) * 3 + 2, momentum=0.05)
    assert (tokenizer.mean - 2).abs().max() < 0.5
    assert (tokenizer.deviation - 3).abs().max() < 0.5


def test_frames_that_latents_do_not_divide_are_padded_inside() -> None:
    sizes: Any = {"encoder_widths": (16, 16), "decoder_widths": (16, 16), "channels": 4, "decoder_blocks": 1}
    config = TokenizerConfig(40, 56, patch=8, **sizes)
    assert (config.factor, config.grid, config.padding) == (16, (3, 4), (8, 8))
    tokenizer, frames = Tokenizer(config), torch.randint(0, 256, (2, 40, 56, 3), dtype=torch.uint8)
    latents = tokenizer.encode(frames)
    assert latents.shape == (2, 4, 3, 4) and tokenizer.decode(latents).shape == frames.shape
    whole = Tokenizer(TokenizerConfig(48, 64, patch=8, **sizes))
    whole.load_state_dict(tokenizer.state_dict())
    edges = torch.nn.functional.pad(frames.movedim(-1, 1).float(), (0, 8, 0, 8), mode="replicate").to(torch.uint8)
    assert torch.equal(whole.encode(edges.movedim(1, -1)), latents)
    with pytest.raises(ValueError, match="whole latents"):
        WorldConfig(config, DynamicsConfig(channels=4, height=3, width=4), memory=MemoryConfig())
    with pytest.raises(ValueError, match="1 or more"):
        TokenizerConfig(patch=0)


@pytest.mark.slow
@pytest.mark.parametrize("path", playable(SHIPPED), ids=str)
def test_what_ships_loads_and_dreams(path: Path) -> None:
    found = load(path)
    state = found.model.start(found.contexts_frames[:1], found.contexts_actions[:1], torch.tensor([0]))
    outcome, _ = found.model.step(state, torch.zeros(1, found.schema.size))
    assert outcome.frames.shape == found.contexts_frames[:1, 0].shape
