"""Who answers a model's requests beside its champion, and how they are batched: facts."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Canary:
    """Answers a share of the requests that name no version."""

    version: int
    # Of those requests; more than 0, less than 1.
    share: float
    # Drawn anew for each request, not by the client's id.
    is_random: bool = False


@dataclass(frozen=True, slots=True)
class Batching:
    """How many requests of one version run at once; 0 means the server's default."""

    max_rows: int = 0
    max_delay_seconds: float = 0.0
    preferred_rows: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Serving:
    """Who answers beside the champion, and how requests are batched; the champion alone if bare."""

    shadow_versions: tuple[int, ...] = ()
    canary: Canary | None = None
    fallback_version: int | None = None
    # The kill switch: the fallback answers.
    is_on_fallback: bool = False
    batching: Batching | None = None

    def versions(self) -> tuple[int, ...]:
        """Every version that it names, each once."""
        named = (
            *self.shadow_versions,
            self.canary.version if self.canary else None,
            self.fallback_version,
        )
        return tuple(dict.fromkeys(each for each in named if each is not None))
