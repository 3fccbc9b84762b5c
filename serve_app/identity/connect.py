"""Chooses who decides who is asking: headers, an identity provider, Entra ID, or Parley's own accounts."""

from __future__ import annotations

from pathlib import Path

from serve_app.access.port import Access
from serve_app.errors import ConfigError
from serve_app.identity.claims import ClaimsReader, IssuerClaims
from serve_app.identity.development import DevelopmentAuthenticator
from serve_app.identity.entra import EntraClaims, entra_keys_url
from serve_app.identity.jwks import CachedKeys, FixedKeys, Freshness, Keys, from_file, from_url
from serve_app.identity.key_set import MAX_SET_BYTES, UnusableKeys, read_key_set
from serve_app.identity.port import Authenticator
from serve_app.identity.tokens import TokenAuthenticator
from serve_app.identity.verifier import TokenVerifier
from serve_app.settings import AuthSettings, Settings

OWN_ISSUER = "parley"
OWN_AUDIENCE = "parley"
"""What tokens of local accounts say, where the settings say nothing else."""
OWN_TENANT_CLAIM = "tenant_id"


def connect(settings: Settings, access: Access, own_keys: bytes | None = None) -> Authenticator:
    """The authenticator that ``settings.auth`` names. Makes no connection: an issuer that is away is no reason not to start.

    ``own_keys``: the key set of the local accounts, which ``accounts`` needs. Raises ConfigError for a file of keys that cannot
    be used.
    """
    auth = settings.auth
    if auth.mode == "development":
        return DevelopmentAuthenticator()
    verifier = TokenVerifier(_keys(settings, own_keys), _reader(auth), leeway_s=auth.leeway_s)
    return TokenAuthenticator(verifier, access)


def check_keys_file(settings: Settings) -> None:
    """The file of keys, where one is named, can be read and has a key. Raises ConfigError."""
    location = _location(settings.auth)
    if location is None or "://" in location:
        return
    path = settings.path(Path(location))
    try:
        with path.open("rb") as file:
            read_key_set(file.read(MAX_SET_BYTES + 1))
    except OSError as error:
        raise ConfigError(f"Setting PARLEY_AUTH__JWKS: the file {path} cannot be read: {error.strerror}.") from error
    except UnusableKeys as error:
        raise ConfigError(f"Setting PARLEY_AUTH__JWKS: the file {path} cannot be used. {error}") from error


def _location(auth: AuthSettings) -> str | None:
    """Where the issuer's keys are; None where they are our own, or nobody's."""
    match auth.mode:
        case "jwt":
            return auth.jwks
        case "entra":
            return auth.jwks or entra_keys_url(auth.authority)
        case _:
            return None


def _keys(settings: Settings, own_keys: bytes | None) -> Keys:
    auth = settings.auth
    location = _location(auth)
    if location is None:
        if own_keys is None:
            raise ConfigError("Setting PARLEY_AUTH__MODE: accounts has no key to verify its own tokens with.")
        return FixedKeys(read_key_set(own_keys))
    check_keys_file(settings)
    by_address = "://" in location
    return CachedKeys(
        from_url(location, auth.jwks_timeout_s) if by_address else from_file(settings.path(Path(location))),
        Freshness(
            ttl_s=auth.jwks_ttl_s,
            stale_s=auth.jwks_stale_s,
            min_refetch_s=auth.jwks_min_refetch_s,
            timeout_s=auth.jwks_timeout_s,
        ),
    )


def _reader(auth: AuthSettings) -> ClaimsReader:
    match auth.mode:
        case "entra":
            return EntraClaims(authority=auth.authority, client_id=auth.client_id or "")
        case "accounts":
            return IssuerClaims(
                issuer=auth.issuer or OWN_ISSUER,
                audience=auth.audience or OWN_AUDIENCE,
                subject_claim="sub",
                tenant_claim=OWN_TENANT_CLAIM,
                roles_claim=None,
            )
        case _:
            return IssuerClaims(
                issuer=auth.issuer or "",
                audience=auth.audience or "",
                subject_claim=auth.subject_claim,
                tenant_claim=auth.tenant_claim,
                roles_claim=auth.roles_claim,
            )
