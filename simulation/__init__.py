"""Simulation: virtual clients without a deployment."""
