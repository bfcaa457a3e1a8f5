"""jaxpose adapts keypoint detectors to new domains without labels."""
