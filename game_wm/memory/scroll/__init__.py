"""The memory of worlds that scroll: a mosaic of what stands still, and where the screen is on it."""
