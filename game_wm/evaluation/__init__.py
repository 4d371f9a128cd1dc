"""How good a checkpoint is, measured against the real game: `evaluate` is the command, `suites` what it runs."""
