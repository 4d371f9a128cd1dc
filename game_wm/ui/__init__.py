"""Playing a dream: a window, a headless run, and the session that they share. Start reading at `session.py`.

python play.py checkpoints/maze.safetensors
"""
