"""What can go wrong with a call, one class per thing that a caller can act on."""


class InferenceError(Exception):
    """Why a call got no answer; the message is meant for the caller."""


class NotServed(InferenceError):
    """There is no such model, or no such version of it."""


class InvalidInput(InferenceError):
    """The request does not fit the model's signature."""


class Overloaded(InferenceError):
    """More waits than may wait; try again later."""


class TooLarge(InferenceError):
    """The message is longer than the server takes."""


class NotKept(InferenceError):
    """The journal can't keep another record: its disk or its quota is full."""


class WrongMode(InferenceError):
    """The server's settings forbid this call."""


class Leaving(InferenceError):
    """The server is shutting down; another one may answer."""


class ModelFailed(InferenceError):
    """The model itself raised on input that fits its signature."""


class Quarantined(InferenceError):
    """The version, or this input of it, is held back after crashes; the message names the cure."""
