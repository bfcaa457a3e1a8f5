"""Published data sets, each a tensorflow-datasets builder that reads the owners' files."""
