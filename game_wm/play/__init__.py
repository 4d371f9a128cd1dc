"""Playing a dream: a window, a headless run, and the session that they share; a page for browsers (`web/`). Start
reading at `session.py`.

python play.py checkpoints/maze.safetensors
"""
