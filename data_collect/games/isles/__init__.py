"""The built-in isles: a world seen from above that is new in every episode. `env.py` is the game."""
