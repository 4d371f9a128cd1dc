"""Training of first-person memory: depth, motion, obstacles, atlas, and the views that it draws."""
