"""The figures of the papers, run anew: each experiment prints the paper's, an independent re-run's and ours.

uv run python -m benchmarks.papers [NAME ...] [--quick] [--engine inline] [--workers 2]
"""
