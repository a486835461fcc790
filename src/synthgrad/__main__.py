"""``python -m synthgrad`` is the command ``synthgrad``, which comes with the experiments' package."""

import runpy

runpy.run_module("synthgrad_lab.cli", run_name="__main__")
