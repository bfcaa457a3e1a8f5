"""Joints: skeletons, their names across data sets, and how they are matched."""
