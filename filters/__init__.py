"""Scorers, one file each; the scores are stored and `pipeline.select` decides on them later."""
