"""From recordings to batches: frames, latents, windows."""
