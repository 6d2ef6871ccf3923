"""The one way in which the judge says no."""


class Refused(Exception):
    """The file can't be served; the message is a sentence that names the cure."""
