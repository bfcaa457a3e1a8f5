"""Flax NNX module definitions behind pure init and apply functions."""
