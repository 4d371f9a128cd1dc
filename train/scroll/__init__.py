"""What makes the memory of worlds that scroll: the screen's own parts, and where an action leads."""
