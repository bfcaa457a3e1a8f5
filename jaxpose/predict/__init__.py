"""Applies the model of a run to images and videos of any size, and writes what other tools read."""
