"""Recurrent networks: tasks, recipes and training in chunks of T steps."""
