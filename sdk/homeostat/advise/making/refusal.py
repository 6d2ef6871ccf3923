"""Why a form can't be made."""


class NotPossible(Exception):
    """The model has no such form, or something to make it with is absent; the message says what."""
