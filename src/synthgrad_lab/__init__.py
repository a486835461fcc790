"""The harness around synthgrad: recipes, data, runs, reports, benchmarks and the command."""
