"""`jaxpose` and `python -m jaxpose`."""

from jaxpose import command_line


def run() -> None:
    """The program."""
    command_line.start()
    from jaxpose import main  # which imports JAX

    main.run()


if __name__ == "__main__":
    run()
