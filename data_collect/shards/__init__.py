"""Shards: WebDataset tar files, their chunks, and what can be asked of them: inspect, check, verify."""
