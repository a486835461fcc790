"""Recipes in stages: a process per stage, or a simulation of them."""
