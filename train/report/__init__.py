"""What training tells: lines, bars, figures, samples, and how fast this machine is."""
