"""`--config` of a run that is there already: `rebuilt.py:WORKDIR` is what its work directory says."""

from jaxpose.train import rebuild


def get_config(workdir: str):
    """The configuration of the run in a work directory."""
    return rebuild.config_of(workdir)
