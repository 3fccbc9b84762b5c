"""What the database cannot or will not do, in our own errors: a sentence, and whether trying again can help."""

from __future__ import annotations

from serve_app.errors import ConfigError, Overloaded, ParleyError, StageUnavailable, TooLarge

PASSING = frozenset({408, 410, 429, 449, 500, 502, 503, 504})
"""Statuses of what may well succeed in a moment."""
COMMITTED_PERHAPS = frozenset({408, 500, 502, 503, 504})
"""Those of them that do not say whether a write has been committed."""
_PASSING_DETAILS = {(404, 1002), (403, 3), (403, 1008)}
"""A replica that has not caught up with what this session has seen; a region that has just ceased, or begun, to take writes."""
_OWNER_MISSING = 1003


def failure_of(error: Exception, status: int, database: str) -> ParleyError:
    """The error that a status is, if trying again has not helped or cannot."""
    if status == 429:
        return Overloaded("The database is busy; try again in a moment.", None, 1.0)
    if status in PASSING:
        return away()
    if status == 401 or (status == 403 and "time" in str(error).lower() and "token" in str(error).lower()):
        return ConfigError(
            "Cosmos DB does not accept the credential (AZURE_COSMOS_KEY, or this machine's Entra identity); "
            "a clock that is wrong has the same effect."
        )
    if status == 403:
        return ConfigError(
            "Cosmos DB refuses this machine: its firewall does not know the address, or the identity has no role for data."
        )
    if status == 404:
        return ConfigError(f"Cosmos DB has no database {database} with all its containers; run `parley store init`.")
    if status == 413:
        return TooLarge("What is to be written is larger than the database takes.")
    return StageUnavailable(f"The database refuses a request ({status}).", False)


def status_of(error: Exception) -> int:
    """The status of an answer, as far as what it means here: 404 is a missing document alone, 503 what passes by itself."""
    status = int(getattr(error, "status_code", None) or 0)
    detail = getattr(error, "sub_status", None)
    return 503 if (status, detail) in _PASSING_DETAILS else status


def away() -> StageUnavailable:
    return StageUnavailable("The database cannot be reached or does not answer; try again in a moment.")


def container_is_missing(error: Exception) -> bool:
    """A 404 that is not about a document."""
    return getattr(error, "status_code", None) == 404 and getattr(error, "sub_status", None) == _OWNER_MISSING
