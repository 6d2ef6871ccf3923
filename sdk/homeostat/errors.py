"""The root of errors that a user can act on."""


class HomeostatError(Exception):
    """Something to act on: the message names the cure, and the command line shows it alone."""
