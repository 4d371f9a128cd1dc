"""Experiments: candidates and methods side by side, benchmarks."""
