"""An auto-regressive latent world model with memory that plays games in real time."""
