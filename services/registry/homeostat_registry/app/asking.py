"""What can be asked."""

from collections.abc import Mapping, Sequence

from homeostat_registry.domain import life
from homeostat_registry.domain.errors import UnknownVersion
from homeostat_registry.domain.facts import Reign, Stage, Version
from homeostat_registry.ports import Book

# In one answer: with signatures of hundreds of inputs still well below a message's limit.
_MOST_VERSIONS = 1000


async def get_version(model_name: str, version: int, *, book: Book) -> Version:
    """One version; 0 means the champion. UnknownModel, UnknownVersion."""
    model = await book.model(model_name)
    wanted = version or model.champion_version
    if wanted is None:
        raise UnknownVersion(f"model {model_name} has no champion yet; promote a version")
    return await book.version(model_name, wanted)


async def list_versions(
    model_name: str, *, limit: int, before: int, run_id: str, book: Book
) -> Sequence[Version]:
    """The newest ``limit`` versions below ``before`` (0: all), oldest first, or what the run made.

    UnknownModel.
    """
    await book.model(model_name)
    if run_id:
        made = await book.of_run(model_name, run_id)
        return [made] if made else []
    return await book.versions(model_name, min(limit or _MOST_VERSIONS, _MOST_VERSIONS), before)


async def champion_at(model_name: str, at_us: int, *, book: Book) -> Reign | None:
    """Who was champion at that event time. UnknownModel."""
    await book.model(model_name)
    return life.champion_at(await book.history(model_name), at_us)


async def aliases(versions: Sequence[Version], *, book: Book) -> Mapping[int, str]:
    """Of one model's versions: "champion", and "challenger" for the newest that awaits approval."""
    found = {each.version: "champion" for each in versions if each.stage is Stage.CHAMPION}
    waiting = {each.version for each in versions if each.stage is Stage.AWAITS_APPROVAL}
    if waiting:
        challenger = await book.challenger(versions[0].model_name)
        if challenger in waiting:
            found[challenger] = "challenger"
    return found
