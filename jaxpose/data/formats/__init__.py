"""File formats: what bytes hold, read without trusting them."""
