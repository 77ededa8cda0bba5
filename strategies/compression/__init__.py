"""Fewer bytes: codecs write a flat delta for the wire and read it again; pure arrays, no Flower."""
