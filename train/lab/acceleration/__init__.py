"""Accelerations that no machine in sight is faster with (docs/efficiency.md), kept to be measured: rows name them.

Each is a function from a `WorldModel` to a `WorldModel`, as those of `game_wm/acceleration` are.
"""
