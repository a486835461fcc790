"""Benchmarks: ratios measured in one run, interleaved, medians over repeats."""
