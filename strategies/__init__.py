"""Federated algorithms on Flower and NumPy. Knows no Keras task, so an app of any framework can use it."""
