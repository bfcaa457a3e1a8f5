"""Where randomness comes from: one seed, and names of what it is for."""

import hashlib


def numbers(*names: str) -> tuple[int, int]:
    """Two numbers below 2**32 for names: a purpose, a stage, a domain. Other names have others."""
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    return int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:8], "big")
