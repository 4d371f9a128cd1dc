"""A ladder of sizes: what each costs, counted and predicted."""
