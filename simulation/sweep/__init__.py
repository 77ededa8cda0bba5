"""Sweeps: many runs of one federation, over grids and random draws of run-config keys, several seeds each.

Chosen: Optuna (Akiba et al., "Optuna: A Next-generation Hyperparameter Optimization Framework", KDD 2019), and not Ray
Tune. A run already trains its clients on every core through a pool of warm workers, so runs follow each other and what
a sweep needs is somebody to say what to try next and what to stop. That is all that Optuna is, in the sweep's own
process; Ray Tune would start an actor per run, each importing TensorFlow, and schedule them over the cores that the
pool holds.
"""
