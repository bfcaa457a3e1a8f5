"""The HTML report and the terminal summary."""
