"""Benchmarks of the training stages, of attention, of tokenizers."""
