"""Skeletons, records, readers, generators, the host pipeline and device-side augmentation."""
