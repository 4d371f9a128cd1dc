"""Games by name: ids and options, any action space and exact replay."""

from __future__ import annotations

import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from data_collect import games
from data_collect.errors import UserError
from data_collect.games.resize import default_size, resize

ATARI, CAR = "gym:ALE/Pong-v5", "gym:CarRacing-v3"


class Toy(gymnasium.Env[Any, Any]):
    """Remembers what it was given; its picture is a flat colour that counts the steps."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 60}

    def __init__(
        self, space: str = "binary", picture: str = "render", render_mode: str | None = None, wrong: str = ""
    ) -> None:
        self.wrong = wrong
        self.metadata = self.metadata | {"fps": {"render_fps": "fast"}, "keys": {"action_keys": 3}}.get(wrong, {})
        if wrong == "init":
            raise ValueError("no such level")
        box = spaces.Box(np.array([-2, 0], np.float32), np.array([2, 1], np.float32))
        self.action_space = {
            "binary": spaces.MultiBinary(3), "several": spaces.MultiDiscrete([3, 2]), "box": box,
            "mixed": spaces.Tuple([spaces.Discrete(2), box]), "text": spaces.Text(3),
        }[space]  # fmt: skip
        seen = spaces.Box(0, 255, (48, 32, 3), np.uint8) if picture == "observation" else spaces.Box(-1, 1, (4,))
        self.observation_space: Any = seen
        self.picture, self.render_mode = picture, None if picture == "nothing" else render_mode
        self.given: list[Any] = []

    def _observation(self) -> np.ndarray:
        return np.full((48, 32, 3), len(self.given), np.uint8) if self.picture == "observation" else np.zeros(4)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.given = []
        if self.wrong == "reset":
            return self._observation()  # type: ignore[return-value]
        return self._observation(), {"pose": (1.0, 2.0, 0.5)}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.given.append(action)
        if self.wrong == "step":
            raise RuntimeError("out of lives")
        return self._observation(), 1.0, len(self.given) == 10, False, {}

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        return None if self.picture == "nothing" else np.full((40, 80, 3), len(self.given), np.uint8)


@pytest.fixture(autouse=True, scope="module")
def toy() -> Any:
    gymnasium.register("Toy-v0", entry_point=Toy)
    yield
    gymnasium.registry.pop("Toy-v0", None)


def play(env: gymnasium.Env, seed: int, steps: int = 60) -> tuple[np.ndarray, list[float]]:
    """Frames (steps + 1, H, W, 3) and rewards under actions that are a function of the seed."""
    frame, _ = env.reset(seed=seed)
    env.action_space.seed(seed)
    frames, rewards, action = [frame.copy()], [], env.action_space.sample()
    for i in range(steps):
        action = env.action_space.sample() if i % 4 == 0 else action
        frame, reward, terminated, truncated, _ = env.step(action)
        frames.append(frame.copy())
        rewards.append(reward)
        if terminated or truncated:
            break
    return np.stack(frames), rewards


# --- ids and options ----------------------------------------------------------------------------------------------


def test_parse() -> None:
    assert games.parse("maze") == ("maze", {})
    assert games.parse("maze?size=9&creatures=0") == ("maze", {"size": "9", "creatures": "0"})
    assert games.parse("gym:ALE/Pong-v5?skip=2") == ("gym:ALE/Pong-v5", {"skip": "2"})


@pytest.mark.parametrize(
    ("game", "told"),
    [
        ("mase", "there are maze, isles, doom, scroll, gym:ID"),
        ("maze?sise=9", "has no option 'sise'; it has size"),
        ("maze?size=big", "'big', which is no int"),
        ("maze?size", "must look like maze?option=value"),
        ("gym:NoSuchGame-v0", "unknown game 'gym:NoSuchGame-v0'"),
        ("gym:no_such_module:Game-v0", "cannot be imported"),
        ("gym:CartPole-v1?speed=2", "does not know an option"),
        ("gym:CartPole-v1?width=100", "multiples of 8"),
        ("gym:Toy-v0?picture=nothing", "gives no picture"),
        ("gym:Toy-v0?space=mixed", "action space"),
        ("gym:Toy-v0?space=text", "action space"),
        ("gym:Toy-v0?skip=-1", "must be positive"),
        ("gym:Toy-v0?fps=nan", "must be positive"),
        ("gym:Toy-v0?fps=inf", "must be positive"),
        ("gym:Toy-v0?wrong=fps", "render_fps in the environment's metadata is 'fast'"),
        ("gym:Toy-v0?wrong=keys", "action_keys must map keys to names"),
        ("gym:Toy-v0?wrong=init", "test_games.py, line"),
        ("gym:Toy-v0?wrong=reset", "'gym:Toy-v0' does not follow Gymnasium"),
        ("gym:Toy-v0?max_episode_steps=x", "'gym:Toy-v0' fails: TypeError"),
        ("gym:.relative:Toy-v0", "the module of 'gym:.relative:Toy-v0' fails"),
    ],
)
def test_what_cannot_be_made_is_told_in_a_sentence(game: str, told: str) -> None:
    with pytest.raises(UserError) as error:
        games.make(game)
    assert told in str(error.value)


def test_options_have_the_constructors_types_and_arguments_win() -> None:
    with games.make("gym:Toy-v0?width=48&height=32&replayable=no&space=box", width=64) as env:
        assert env.observation_space.shape == (32, 64, 3)
        assert env.action_schema.kind == "box"
        assert not env.replayable


def test_every_listed_game_can_be_made() -> None:
    for name in games.GAMES:
        if name == "doom":
            pytest.importorskip("vizdoom")
        with games.make(name) as env:
            frame, _ = env.reset(seed=0)
            assert frame.dtype == np.uint8 and frame.shape == env.observation_space.shape
            assert env.action_space == env.action_schema.space()


# --- Gymnasium ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", ["binary", "several", "box"])
def test_action_spaces(space: str) -> None:
    with games.make(f"gym:Toy-v0?space={space}&skip=1") as env:
        env.reset(seed=0)
        action = env.action_space.sample()
        env.step(action)
        env.step(env.action_schema.decode(env.action_schema.encode(action)))
        given = env.env.unwrapped.given
        assert all(env.env.action_space.contains(one) for one in given)
        np.testing.assert_allclose(given[0], given[1], atol=1e-5)


def test_skip_repeats_the_action_and_adds_the_rewards() -> None:
    with games.make("gym:Toy-v0") as env:
        assert env.skip == 4 and env.action_schema.fps == 15  # 60 frames a second
        frame, info = env.reset(seed=0)
        assert frame.shape == (64, 128, 3) and info["pose"] == (1.0, 2.0, 0.5)
        steps = [env.step(env.action_schema.noop()) for _ in range(3)]
        assert [frame.max() for frame, *_ in steps] == [4, 8, 10]
        assert [reward for _, reward, *_ in steps] == [4, 4, 2]
        assert [terminated for _, _, terminated, *_ in steps] == [False, False, True]


def test_a_game_that_raises_is_one_sentence() -> None:
    with games.make("gym:Toy-v0?wrong=step") as env:
        env.reset(seed=0)
        with pytest.raises(UserError, match=r"'gym:Toy-v0' fails in .*test_games\.py, line \d+: RuntimeError: out of"):
            env.step(env.action_schema.noop())


def test_an_rgb_observation_is_the_frame() -> None:
    with games.make("gym:Toy-v0?picture=observation&skip=1&width=32&height=48") as env:
        frame, _ = env.reset(seed=0)
        assert frame.shape == (48, 32, 3)
        assert env.step(env.action_schema.noop())[0].mean() == 1


@pytest.mark.slow
def test_atari() -> None:
    pytest.importorskip("ale_py")
    with games.make(ATARI) as env, games.make(ATARI) as other:
        schema = env.action_schema
        assert schema.kind == "discrete" and schema.names[:2] == ("NOOP", "FIRE")
        assert schema.fps == 15 and env.observation_space.shape == (80, 64, 3)
        assert schema.names[schema.from_keys(["up", "space"])] == "RIGHTFIRE"  # Pong's "right" is upwards
        play(env, 1)  # what was played before leaves no trace
        frames, rewards = play(env, 2)
        again, rewards_again = play(other, 2)
        assert np.array_equal(frames, again) and rewards == rewards_again
        assert len(np.unique(frames.reshape(len(frames), -1), axis=0)) > 10
    with games.make(f"{ATARI}?full_action_space=true") as env:
        assert env.action_schema.size == 18
        assert env.action_schema.names[env.action_schema.from_keys(["up", "left", "space"])] == "UPLEFTFIRE"


@pytest.mark.slow
def test_car_racing() -> None:
    pytest.importorskip("Box2D")
    with games.make(CAR) as env, games.make(CAR) as other:
        schema = env.action_schema
        assert schema.kind == "box" and schema.names == ("steer", "gas", "brake") and 15 <= schema.fps <= 20
        assert schema.noop().tolist() == [0, 0, 0]
        assert schema.from_keys(["left", "up"]).tolist() == [-1, 1, 0]
        play(env, 1, 3)
        frames, rewards = play(env, 2, 20)
        again, rewards_again = play(other, 2, 20)
        assert np.array_equal(frames, again) and rewards == rewards_again


@pytest.mark.slow
def test_the_example_driver_follows_the_road() -> None:
    pytest.importorskip("Box2D")
    from examples.car_driver import Driver

    with games.make(f"{CAR}?skip=4") as env:
        frame, info = env.reset(seed=2)  # a track on which it has no whims at first
        driver = Driver()
        driver.reset(env, frame, info)
        away = []
        for _ in range(45):
            frame, *_, info = env.step(driver(frame, info))
            away.append(np.hypot(*(driver.track - tuple(driver.game.car.hull.position)).T).min())
    assert np.median(away) < 5  # half of the road is 6.7 wide
    assert driver.game.tile_visited_count > 20


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, game in (("vizdoom", "doom"), ("ale_py", ATARI), ("Box2D", CAR)):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            for loaded in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
                patch.delitem(sys.modules, loaded)
            with pytest.raises(UserError, match=r"pip install 'game_wm\[games\]'"):
                games.make(game)


def test_resize_averages_areas_and_cuts_to_the_aspect() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (192, 256, 3), np.uint8)
    small = resize(frame, 128, 96, cut=True)
    means = frame.reshape(96, 2, 128, 2, 3).mean((1, 3))
    assert small.shape == (96, 128, 3) and np.abs(small - means).max() <= 1
    striped = np.zeros((192, 256, 3), np.uint8)
    striped[:, 32:224] = 200
    assert (resize(striped, 64, 64, cut=True) == 200).all()  # the sides are gone
    assert default_size(96, 96) == (64, 64)
    assert default_size(600, 400) == (96, 64)


def test_whose_pictures_they_are_is_known() -> None:
    assert "Freedoom" in games.notice("doom?width=160") and games.notice("maze") == games.notice(ATARI) == ""
