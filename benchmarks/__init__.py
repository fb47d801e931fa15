"""Measurements of what browserkeeper costs, as ratios to its rivals: ``make bench``."""
