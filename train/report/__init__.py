"""What training reports: lines, bars, figures, samples, and how fast this machine is."""
