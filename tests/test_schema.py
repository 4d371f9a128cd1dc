"""The action schema: encoding round trips, keys and JSON, for every kind of action space."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gymnasium import spaces

from data_collect.errors import UserError
from data_collect.schema import ActionSchema

SPACES = {
    "multibinary": spaces.MultiBinary(4),
    "discrete": spaces.Discrete(6),
    "multidiscrete": spaces.MultiDiscrete([3, 2, 4]),
    "box": spaces.Box(np.array([-1, 0, 0], np.float32), np.array([1, 1, 5], np.float32)),
}
ATARI = ("NOOP", "FIRE", "UP", "RIGHT", "LEFT", "UPRIGHT", "UPLEFT", "UPFIRE", "RIGHTFIRE", "UPRIGHTFIRE")


@pytest.mark.parametrize("kind", SPACES)
def test_encode_and_decode_are_inverse_and_vectorised(kind: str) -> None:
    space = SPACES[kind]
    space.seed(0)
    schema = ActionSchema.from_space(space, fps=20)
    assert schema.kind == kind and schema.space() == space
    actions = [space.sample() for _ in range(20)]
    raw = np.stack([schema.raw(action) for action in actions])
    assert raw.shape == (20, schema.width) and raw.dtype == schema.dtype
    encoded = schema.encode(raw)
    assert encoded.shape == (20, schema.size) and encoded.dtype == np.float32
    assert encoded.min() >= -1 and encoded.max() <= 1
    for action, row, vector in zip(actions, raw, encoded, strict=True):
        np.testing.assert_array_equal(schema.encode(action), vector)
        np.testing.assert_allclose(schema.decode(vector), action, atol=1e-6)
        assert space.contains(schema.action(row))
    np.testing.assert_allclose(schema.decode(encoded.reshape(4, 5, -1)), raw.reshape(4, 5, -1), atol=1e-6)


@pytest.mark.parametrize("kind", SPACES)
def test_json_round_trip(kind: str) -> None:
    schema = ActionSchema.from_space(SPACES[kind], fps=35)
    assert ActionSchema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


@pytest.mark.parametrize(
    ("kind", "action"),
    [("multibinary", [0, 1, 2, 0]), ("multibinary", [1, 0]), ("discrete", 6), ("discrete", -1), ("discrete", 1.5),
     ("multidiscrete", [2, 2, 0]), ("box", [0, 0, 5.5]), ("box", [np.nan, 0, 0]), ("box", "left"), ("discrete", None)],
)  # fmt: skip
def test_invalid_actions_are_refused(kind: str, action: object) -> None:
    with pytest.raises(UserError):
        ActionSchema.from_space(SPACES[kind], fps=20).encode(action)


def test_no_key_does_nothing() -> None:
    for kind, space in SPACES.items():
        schema = ActionSchema.from_space(space, fps=20)
        np.testing.assert_array_equal(schema.from_keys([]), schema.noop())
        assert space.contains(schema.noop()), kind
    assert ActionSchema.from_space(spaces.Discrete(3), 20, names=["left", "noop", "right"]).noop() == 1


def test_buttons_are_held_together() -> None:
    schema = ActionSchema.from_space(spaces.MultiBinary(4), 20, names=["forward", "back", "turn_left", "turn_right"])
    assert schema.from_keys(["left", "up"]).tolist() == [1, 0, 1, 0]
    assert schema.from_keys(["f12"]).tolist() == [0, 0, 0, 0]


def test_discrete_combinations() -> None:
    schema = ActionSchema.from_space(spaces.Discrete(len(ATARI)), 60, names=ATARI)
    assert schema.keys == {"space": "FIRE", "up": "UP", "right": "RIGHT", "left": "LEFT"}

    def name(*held: str) -> str:
        return ATARI[schema.from_keys(held)]

    assert name("up", "space") == name("space", "up") == "UPFIRE"
    assert name("right", "up", "space") == "UPRIGHTFIRE"
    assert name("left") == "LEFT" and name() == "NOOP"
    assert name("left", "right") == "RIGHT" and name("right", "left") == "LEFT"  # no such pair: the latest key wins


def test_discrete_part_that_is_no_choice_by_itself() -> None:
    names = ("NOOP", "UP", "UPFIRE")
    schema = ActionSchema("discrete", names, keys={"up": "UP", "space": "FIRE"}, fps=60)
    assert names[schema.from_keys(["space", "up"])] == "UPFIRE" and names[schema.from_keys(["space"])] == "NOOP"


def test_axes_are_pushed_by_keys() -> None:
    keys = {"left": "steer-", "right": "steer+", "up": "gas+"}
    space = spaces.Box(np.array([-1, 0], np.float32), np.array([1, 1], np.float32))
    schema = ActionSchema.from_space(space, 50, names=["steer", "gas"], keys=keys)
    assert schema.from_keys(["left", "up"]).tolist() == [-1, 1]
    assert schema.from_keys(["left", "right"]).tolist() == [0, 0]
    assert schema.encode(schema.noop()).tolist() == [0, -1]
    assert schema.histogram(np.array([[-1, 0], [0, 1]], np.float32)) == {
        "steer-": 1, "steer0": 1, "steer+": 0, "gas-": 0, "gas0": 1, "gas+": 1}  # fmt: skip


def test_multidiscrete_keys_and_histogram() -> None:
    names = ["noop", "left", "right", "none", "fire"]
    schema = ActionSchema.from_space(spaces.MultiDiscrete([3, 2]), 20, names=names)
    assert schema.from_keys(["right", "space"]).tolist() == [2, 1]
    assert schema.histogram(np.array([[0, 0], [2, 1]])) == {"noop": 1, "left": 0, "right": 1, "none": 1, "fire": 1}


def test_actions_in_words() -> None:
    schema = ActionSchema("multibinary", ("forward", "turn_left"), fps=20)
    assert schema.describe([1, 1]) == "forward+turn_left" and schema.describe([0, 0]) == "-"
    assert ActionSchema("discrete", ATARI, fps=60).describe(7) == "UPFIRE"
    axes = ActionSchema("box", ("steer", "gas"), low=(-1.0, 0.0), high=(1.0, 1.0), fps=50)
    assert axes.describe([-0.5, 0]) == "steer -0.5" and axes.describe(axes.noop()) == "-"


def test_bad_schemas_are_refused() -> None:
    with pytest.raises(UserError, match="finite"):
        ActionSchema.from_space(spaces.Box(-np.inf, np.inf, (2,)), 20)
    with pytest.raises(UserError, match="unknown actions"):
        ActionSchema("multibinary", ("a",), keys={"up": "b"}, fps=20)
    with pytest.raises(UserError, match="not supported"):
        ActionSchema.from_space(spaces.Text(3), 20)
    for space in (spaces.Discrete(3, start=1), spaces.MultiDiscrete([3, 2], start=[0, 1])):
        with pytest.raises(UserError, match="from 0"):
            ActionSchema.from_space(space, 20)
    with pytest.raises(UserError, match="invalid"):
        ActionSchema.from_json({"kind": "discrete"})


def test_a_value_beyond_all_numbers_is_refused() -> None:
    with pytest.raises(UserError, match="as large"):
        ActionSchema("discrete", ATARI, fps=60).raw([10**400])
