"""Running experiments: what a family offers, settings, the loop, records. Knows no family."""
