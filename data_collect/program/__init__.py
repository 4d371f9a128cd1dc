"""A pygame program as a game: `env` is the game, `controls` finds its keys; `stage`, `clock` and `inputs` are what the
program runs with, in a process of its own."""
