"""Faster ways to play the same model: each is a function from a `WorldModel` to a `WorldModel`."""

from game_wm.acceleration.compilation import compile
from game_wm.acceleration.packing import pack
from game_wm.acceleration.precision import choose
from game_wm.world import WorldModel


def prepare(model: WorldModel, precision: str = "auto", device: str = "cpu", compiled: bool = False) -> WorldModel:
    """The model as play and measurements take it, changed in place: everything that is faster on this device and cannot
    be seen. `compiled`: and compiled in the background, while play goes on."""
    choose(model, precision, device)
    return pack(compile(model) if compiled else model)
