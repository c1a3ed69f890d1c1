"""The words everyone shares: time, tiers, bars, windows, sessions, errors, settings, metric names."""
