"""What can go wrong on the way up, each with its cure in the message."""

from homeostat.errors import HomeostatError


class LocalError(HomeostatError):
    """The embedded default cannot do what was asked; the message says what would help."""


class MissingExtra(LocalError):
    """A wheel of the extra `local` is not installed."""


class FolderUnusable(LocalError):
    """The data folder cannot be written, or its disk is full."""


class StartFailed(LocalError):
    """A process ended or stayed silent before it was ready."""
