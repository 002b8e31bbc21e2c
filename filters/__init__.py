"""Scorers, one file each; the scores are stored and `pipeline.selection` decides on them later."""
