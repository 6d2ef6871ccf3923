"""What a caller of the ledger can act on."""


class LedgerError(Exception):
    """Something the ledger says no to; the message names the cure."""


class BadRequest(LedgerError):
    """The question or the rows can't be read as asked."""


class UnknownPrediction(LedgerError):
    """No such prediction is in the archive (yet)."""


class UnknownModel(LedgerError):
    """Nothing of this model was ever taken in."""


class IncompatibleColumns(LedgerError):
    """Two versions of the model have the same column with types that don't go together."""


class Unreadable(LedgerError):
    """A record that is not what its contract says; the message is the dead letter's reason."""


class DatabaseAway(LedgerError):
    """The database is away; the same call may do later."""


class Superseded(LedgerError):
    """A newer process writes this ledger; this one must leave."""
