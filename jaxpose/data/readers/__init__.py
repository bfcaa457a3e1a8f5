"""Readers of data sets and of users' own labels, one module per format."""
