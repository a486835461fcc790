"""The paper's numbers for recurrent tasks."""

from __future__ import annotations

PAPER: dict[tuple[str, str], dict[int, float]] = {
    ("copy", "bptt"): {2: 7, 3: 8, 4: 10, 5: 8},
    ("copy", "dni"): {2: 16, 3: 14, 4: 18, 5: 18},
    ("copy", "dni-aux"): {2: 16, 3: 17, 4: 19, 5: 18},
    ("repeat-copy", "bptt"): {2: 7, 3: 5, 4: 19, 5: 23},
    ("repeat-copy", "dni"): {2: 39, 3: 33, 4: 39, 5: 59},
    ("repeat-copy", "dni-aux"): {2: 39, 3: 59, 4: 67, 5: 59},
    ("char-lm", "bptt"): {2: 1.39, 3: 1.38, 4: 1.37, 5: 1.37, 8: 1.35, 20: 1.35, 40: 1.34},
    ("char-lm", "dni"): {2: 1.37, 3: 1.36, 4: 1.35, 5: 1.35, 8: 1.34},
    ("char-lm", "dni-aux"): {2: 1.37, 3: 1.36, 4: 1.35, 5: 1.35, 8: 1.33},
}
"""Jaderberg et al. 2017, the recurrent table, all with an LSTM: by recipe, method and T."""
