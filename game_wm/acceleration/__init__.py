"""Faster ways to play the same model: each is a function from a `WorldModel` to a `WorldModel`."""
