"""What can go wrong with a call, one class per thing that a caller can act on."""


class InferenceError(Exception):
    """Why a call got no answer; the message is meant for the caller."""

    # When it may be worth while to try again; None where it is not the time that matters.
    retry_after_seconds: float | None = None


class NotServed(InferenceError):
    """There is no such model, or no such version of it."""


class NotServedYet(NotServed):
    """It is being loaded: the same request may be answered in a moment."""


class InvalidInput(InferenceError):
    """The request does not fit the model's signature."""


class Overloaded(InferenceError):
    """More waits than may wait; try again later."""

    def __init__(self, message: str, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class TooLarge(InferenceError):
    """The message is longer than the server takes."""


class NotKept(InferenceError):
    """The journal can't keep another record: its disk or its quota is full."""

    retry_after_seconds = 1.0


class WrongMode(InferenceError):
    """The server's settings forbid this call."""


class Leaving(InferenceError):
    """The server is shutting down; another one may answer."""


class ModelFailed(InferenceError):
    """The model itself raised on input that fits its signature."""


class Quarantined(InferenceError):
    """The version, or this input of it, is held back after crashes; the message names the cure."""


class DeadlineExceeded(InferenceError):
    """The answer would come later than the caller, or the server, wants to wait for it."""


class NotOffered(InferenceError):
    """The protocol has it and this server does not; the message names what does it instead."""
