"""Faster ways to play the same model: each is a function from a `WorldModel` to a `WorldModel`."""

from game_wm.acceleration.compilation import compile
from game_wm.acceleration.packing import pack
from game_wm.acceleration.precision import choose
from game_wm.world import WorldModel


def prepare(model: WorldModel, precision: str = "auto", device: str = "cpu", compiled: bool = False) -> WorldModel:
    """What play and measurements begin with, in place: all that is faster on this device and cannot be seen.
    `compiled`: it has itself compiled as well, while play goes on."""
    choose(model, precision, device)
    return pack(compile(model) if compiled else model)
