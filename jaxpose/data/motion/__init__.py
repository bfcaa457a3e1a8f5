"""Readers of recorded motions, and their conversion to common joint names and frame rates."""
