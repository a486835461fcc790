"""The commands of ``synthgrad``, a file each."""

COMMANDS = {
    "run": "Run a recipe, or resume a run.",
    "launch": "Run an image recipe in stages, one process each, or resume such a run.",
    "list": "List the recipes; with a name, one recipe's settings.",
    "show": "Print an example of a recurrent task, or the schedule of clocks.",
    "report": "Write a self-contained HTML page about runs.",
    "demo": "Train four methods beside each other on real MNIST.",
    "reproduce": "Run an experiment, and write its tables from the records.",
    "bench": "Run a benchmark: cost in time, memory, throughput, faults.",
    "env": "Show what a number here depends on.",
    "completion": "Print a script that completes words in your shell.",
}
"""Each command is a file of ``commands``."""
