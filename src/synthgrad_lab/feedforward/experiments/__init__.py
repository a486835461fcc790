"""Experiments: one file per table or figure; each is a set of runs that is resumed cell by cell."""
