"""The one way in which the judge says no."""

_MOST_LETTERS = 1500
_NAME_LETTERS = 80


class Refused(Exception):
    """The file can't be served; the message is a sentence that names the cure."""

    def __init__(self, message: str) -> None:
        """What a stranger's file put into the message can't break a terminal or a log."""
        super().__init__(_printable(message)[:_MOST_LETTERS])


def short(name: str) -> str:
    """A stranger's name, for a message."""
    return name if len(name) <= _NAME_LETTERS else f"{name[:_NAME_LETTERS]}..."


def named(name: str) -> str:
    """The same in quotes."""
    return repr(short(name))


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
