"""Pure tensor functions: heatmaps, decoding, warps, convolutions."""
