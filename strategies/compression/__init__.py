"""Fewer bytes: codecs write a flat delta for the wire and read it again; pure arrays, no Flower.

`codec` says what a codec is, `compressed` is the one that is made of parts, `registry` names the parts: one file each.
"""
