"""What can go wrong that a caller can act on; each message names the model and the cure."""


class RegistryError(Exception):
    """Any refusal of the registry."""


class Invalid(RegistryError):
    """The request itself can't be right."""


class BadArtifact(Invalid):
    """The uploaded bytes are not what the header says, or not a model that can be served."""


class UnknownModel(RegistryError):
    """No model of that name."""


class UnknownVersion(RegistryError):
    """The model has no such version, or no champion yet."""


class UnknownArtifact(RegistryError):
    """No artifact with that sha256."""


class AlreadyExists(RegistryError):
    """The model, or a version with the same artifact, is there already."""


class StaleEtag(RegistryError):
    """The model changed since its etag was read."""


class StaleRun(RegistryError):
    """A run with a newer fencing token has registered already."""


class WrongStage(RegistryError):
    """The version's stage does not allow it."""


class StaleChampion(WrongStage):
    """The champion is no longer the one that the evidence compares with."""


class SelfApproval(RegistryError):
    """The author of a version may not approve it."""


class TooBusy(RegistryError):
    """So many registrations are under way that another would need too much room."""


class DamagedArtifact(RegistryError):
    """What stands on disk is not what was registered."""


class BookAway(RegistryError):
    """The database can't be reached; whether a change was made is known when it is asked again."""


class JudgeAway(RegistryError):
    """The judge of model files can't be started; nothing was registered."""
