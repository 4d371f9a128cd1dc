"""Which camera a recording was taken with: whether the picture scrolls, turns, shows a room from within, or stands."""
