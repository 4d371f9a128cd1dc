"""Recording gameplay into shards."""
