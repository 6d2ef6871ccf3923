"""What can go wrong in the retrainer, by what a caller can do about it."""


class RetrainerError(Exception):
    """Root of the retrainer's errors."""


class UnknownRun(RetrainerError):
    """No run of that id was ever due."""


class UnknownModel(RetrainerError):
    """No version of that model was ever announced; push one first."""


class BadRequest(RetrainerError):
    """A field is missing or malformed; the message names it."""


class CannotRun(RetrainerError):
    """The run ends without a candidate; the message is its reason."""


class CannotCompare(RetrainerError):
    """The champion itself does not run on the rows; the message says why and what to do."""


class StaleChampion(RetrainerError):
    """Another version became champion since the run read it."""


class PeerAway(RetrainerError):
    """Registry or ledger does not answer now: try again."""


class PeerRefused(RetrainerError):
    """Registry or ledger refused for good; the message is theirs."""


class WorkerDied(RetrainerError):
    """The worker process was ended (memory, time, crash) while it worked."""


class UnknownToPeer(PeerRefused):
    """The peer knows nothing by that name."""


class UnreadableRecord(RetrainerError):
    """A record parses and yet cannot be; the message carries none of its values."""
