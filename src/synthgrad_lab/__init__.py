"""The harness of synthgrad: recipes, data, runs, records, reports, benchmarks, and the command ``synthgrad``."""

import os

# Before torch is imported: its profiler, with which a step's memory is measured, talks on standard error.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
