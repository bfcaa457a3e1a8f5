"""How each paper or baseline is trained: one file each."""
