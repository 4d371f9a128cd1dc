"""How one frame is generated: each file holds its training loss and its sampler, side by side."""
