"""Deployments: their certificates and keys, and Flower's processes started with them. Nothing here is part of a run."""
