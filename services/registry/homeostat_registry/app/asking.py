"""What can be asked."""

from collections.abc import Sequence

from homeostat_registry.domain import life
from homeostat_registry.domain.errors import UnknownVersion
from homeostat_registry.domain.facts import Reign, Stage, Version
from homeostat_registry.ports import Book


async def get_version(model_name: str, version: int, *, book: Book) -> Version:
    """One version; 0 means the champion. UnknownModel, UnknownVersion."""
    model = await book.model(model_name)
    wanted = version or model.champion_version
    if wanted is None:
        raise UnknownVersion(f"model {model_name} has no champion yet; promote a version")
    return await book.version(model_name, wanted)


async def list_versions(model_name: str, *, book: Book) -> Sequence[Version]:
    """All versions, oldest first. UnknownModel."""
    await book.model(model_name)
    return await book.versions(model_name)


async def champion_at(model_name: str, at_us: int, *, book: Book) -> Reign | None:
    """Who was champion at that event time. UnknownModel."""
    await book.model(model_name)
    return life.champion_at(await book.history(model_name), at_us)


def aliases(version: Version, versions: Sequence[Version]) -> list[str]:
    """ "champion", or "challenger" for the newest that awaits approval."""
    if version.stage is Stage.CHAMPION:
        return ["champion"]
    waiting = [each.version for each in versions if each.stage is Stage.AWAITS_APPROVAL]
    return ["challenger"] if waiting and version.version == max(waiting) else []
