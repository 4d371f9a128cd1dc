"""What the model remembers: each level is explicit state with `start`, `write` and `read`."""
