"""A game in a process of its own (`guest`), what that process does (`inside`), and episodes played there (`match`)."""
