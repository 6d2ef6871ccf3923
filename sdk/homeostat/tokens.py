"""The file of bearer tokens: names, hashes and roles; a token itself is shown once and not kept."""

import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from homeostat.errors import HomeostatError

_TOKEN_BYTES = 32
_DIGEST_BYTES = 32
_MAX_NAME_CHARACTERS = 128


class Role(StrEnum):
    """What a token may be used for."""

    # Predictions and their truth.
    PREDICT = "predict"
    # Looking at models, versions, runs and states.
    READ = "read"
    # Changing what is registered, served, approved or retrained.
    MANAGE = "manage"
    # All of these, and whatever is in no table.
    ADMIN = "admin"


class UnusableTokens(HomeostatError, ValueError):
    """The file is none, or a token can't be added to it; the message names the cure."""


@dataclass(frozen=True, slots=True)
class TokenEntry:
    """One token of the file."""

    name: str
    # sha256 of the token's UTF-8 bytes.
    digest: bytes
    roles: frozenset[Role]

    def may(self, role: Role) -> bool:
        """Whether it has the role; an admin has all."""
        return role in self.roles or Role.ADMIN in self.roles


def digest_of(token: str) -> bytes:
    """What the file keeps of a token. Tokens are random, so that no slow hash is needed."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


def read_tokens(path: Path) -> tuple[TokenEntry, ...]:
    """The file's tokens; UnusableTokens if it can't be read or says something else."""
    try:
        document = json.loads(path.read_bytes())
        entries = tuple(_entry(each) for each in document["tokens"])
    except OSError as error:
        raise UnusableTokens(f"{path} can't be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnusableTokens(
            f"{path} is no file of tokens ({type(error).__name__}: {error}); "
            "cure: make one with `homeostat token new NAME --role ROLE`"
        ) from error
    _require_distinct(path, entries)
    return entries


def _entry(told: Any) -> TokenEntry:
    name, digest = str(told["name"]), bytes.fromhex(told["sha256"])
    if len(digest) != _DIGEST_BYTES:
        raise ValueError(f"the sha256 of {name!r} has {len(digest)} bytes")
    return TokenEntry(name, digest, frozenset(Role(each) for each in told["roles"]))


def _require_distinct(path: Path, entries: Sequence[TokenEntry]) -> None:
    for what in ([each.name for each in entries], [each.digest for each in entries]):
        if len(set(what)) < len(what):
            raise UnusableTokens(f"{path} has a name or a token twice; cure: remove one of them")


def add_token(path: Path, name: str, roles: Iterable[Role]) -> str:
    """Makes a token, appends its hash to the file (made if absent, readable by its owner alone),
    and returns the token. UnusableTokens if the name is taken or there is no role."""
    entries = read_tokens(path) if path.exists() else ()
    wanted = frozenset(roles)
    if not wanted:
        raise UnusableTokens(f"a token needs a role; there are {', '.join(Role)}")
    if not name.strip() or len(name) > _MAX_NAME_CHARACTERS or not name.isprintable():
        raise UnusableTokens(
            f"{name[:32]!r} is no name; cure: at most {_MAX_NAME_CHARACTERS} printable characters"
        )
    if any(each.name == name for each in entries):
        raise UnusableTokens(
            f"{path} has a token of {name!r} already; cure: another name, or remove that one"
        )
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    _write(path, (*entries, TokenEntry(name, digest_of(token), wanted)))
    return token


def _write(path: Path, entries: Sequence[TokenEntry]) -> None:
    """Replaces the file in one step: servers read it again while it is changed."""
    document = {
        "tokens": [
            {"name": each.name, "sha256": each.digest.hex(), "roles": sorted(each.roles)}
            for each in entries
        ]
    }
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(document, file, indent=2)
        file.write("\n")
    beside.replace(path)
