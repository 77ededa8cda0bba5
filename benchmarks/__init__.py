"""Side-by-side measurements, each a script: ``uv run python -m benchmarks.NAME``; figures in README.md."""
