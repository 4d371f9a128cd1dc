"""The networks, and nothing else: tokenizer, context stream, denoiser, and the dynamics that joins the two."""
