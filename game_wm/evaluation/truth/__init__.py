"""The truth: the real game, played on seeds that training never saw."""
