"""The files that play reads and writes: action files, saved dreams, shards, videos."""
