"""Checkpoints whose weights are stored in fewer bits: how they are read, and what is made of them.

Every layout is read into plain weights of the model's type, from where on it is a model like any other. FP8 weights can
also stay as they are, for a GPU that multiplies with them.
"""
