"""Keras tasks: data, partitions, models, local training and evaluation. Knows no Flower."""
