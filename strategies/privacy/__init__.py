"""Differential privacy: what bounds and blurs what one client can do to the model, and what that is worth."""
