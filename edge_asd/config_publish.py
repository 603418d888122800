"""Whom the configuration tells of what is heard, the broker and Prometheus, and what is kept of it."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from edge_asd.config_types import Number, RelativePath, SecretPath, Section, Topic, as_section
from edge_asd.secrets_file import without_login


class TlsSection(Section):
    """TLS to the broker; present and empty means the system's certificate authorities."""

    ca: RelativePath | None = None
    """Certificate of the authority that signed the broker's."""
    certificate: RelativePath | None = None
    """The client's own, with ``key``."""
    key: SecretPath | None = None
    """Of the client's own certificate, without a passphrase; looked for in $CREDENTIALS_DIRECTORY first."""

    @model_validator(mode="after")
    def _is_a_pair(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together: give both or none")
        return self


def _discovery(value: Any) -> Any:
    """``true`` and an empty key are the defaults, ``false`` is none."""
    return None if value is False else {} if value is True else as_section(value)


class DiscoverySection(Section):
    """Makes the machines known to Home Assistant; also written ``discovery: true``."""

    prefix: Topic = "homeassistant"
    """Its discovery prefix."""

    @field_validator("prefix")
    @classmethod
    def _has_no_empty_level(cls, prefix: str) -> str:
        if "" in prefix.split("/"):
            raise ValueError("must be a topic without a slash at its beginning or end, such as homeassistant")
        return prefix


class MqttSection(Section):
    """The broker; without this section events go to the log only."""

    host: Annotated[str, Field(min_length=1)]
    """Name or address of the broker."""
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    """8883 is usual with TLS."""
    tls: Annotated[TlsSection | None, BeforeValidator(as_section)] = None
    """Without this section there is no TLS."""
    username: str | None = None
    """For the broker."""
    password_file: SecretPath | None = None
    """Its first line is the password, but for blanks at its end; looked for in $CREDENTIALS_DIRECTORY first."""
    discovery: Annotated[DiscoverySection | None, BeforeValidator(_discovery)] = None
    """Of Home Assistant."""

    @field_validator("host")
    @classmethod
    def _is_a_host_name(cls, host: str) -> str:
        try:
            host.encode("idna")
        except UnicodeError:
            raise ValueError(f"{without_login(host)!r} is not a host name") from None
        is_address = host.count(":") > 1 and all(c in "0123456789abcdefABCDEF:.%" for c in host.partition("%")[0])
        if not is_address and any(not c.isprintable() or c in " /:[]@" for c in host):
            shown = without_login(host)
            raise ValueError(
                f"{shown!r} must be the name or address alone, as in broker.plant-3; the port has its own key"
            )
        return host

    @model_validator(mode="after")
    def _has_a_user(self) -> Self:
        if self.password_file is not None and self.username is None:
            raise ValueError("password_file needs a username")
        return self


class ServerTlsSection(Section):
    """TLS of the Prometheus endpoint."""

    certificate: RelativePath
    """In PEM form, with what signed it but the root; read again when it was renewed."""
    key: SecretPath
    """Without a passphrase; looked for in $CREDENTIALS_DIRECTORY first."""


class OutboxSection(Section):
    """The database that alerts wait in until the broker has them."""

    keep_megabytes: Annotated[int, Field(ge=8, le=100_000)] = 64
    """That it may take up; when full, the oldest delivered alerts go first."""

    @property
    def most_bytes(self) -> int:
        """As the outbox takes it."""
        return self.keep_megabytes * 1_000_000


class MetricsSection(Section):
    """The Prometheus endpoint; without this section there is none."""

    listen: str = "127.0.0.1:9464"
    """ADDRESS:PORT."""
    tls: Annotated[ServerTlsSection | None, BeforeValidator(as_section)] = None
    """Without this section there is no TLS."""
    username: Annotated[str, Field(min_length=1)] | None = None
    """Who may read, by HTTP basic authentication; with ``password_file``."""
    password_file: SecretPath | None = None
    """Its first line is the password, but for blanks at its end; looked for in $CREDENTIALS_DIRECTORY first."""

    @field_validator("username")
    @classmethod
    def _has_no_colon(cls, name: str | None) -> str | None:
        if name is not None and (":" in name or not name.isprintable()):
            raise ValueError("must have no colon: it ends the name in basic authentication")
        return name

    @model_validator(mode="after")
    def _has_a_login(self) -> Self:
        if (self.username is None) != (self.password_file is None):
            raise ValueError("username and password_file go together: give both or none")
        return self

    @field_validator("listen")
    @classmethod
    def _is_an_address(cls, text: str) -> str:
        host, _, port = text.rpartition(":")
        if not host or "@" in host or not port.isdecimal() or not 0 <= int(port) <= 65535:
            raise ValueError("must be ADDRESS:PORT, for example 127.0.0.1:9464")
        if host == "*":
            raise ValueError("must be ADDRESS:PORT; 0.0.0.0 is for all addresses")
        if any(c in host for c in ":[]") and not _is_ipv6_in_brackets(host):
            raise ValueError("must be ADDRESS:PORT, of IPv6 with the address in brackets, for example [::1]:9464")
        return text

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.listen.rpartition(":")
        return host.removeprefix("[").removesuffix("]"), int(port)


def _is_ipv6_in_brackets(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host[1:-1])
    except ValueError:
        return False
    return host.startswith("[") and host.endswith("]")


class EvidenceSection(Section):
    """What is kept of an incident; without this section pictures are."""

    pictures: bool = True
    """Of the window that raised it."""
    clips: bool = False
    """Its sound, with what came before. Off unless wanted: people talk near machines."""
    before_seconds: Annotated[Number, Field(ge=0, le=110)] = 10.0
    """Of sound before the first window that counted."""
    keep_megabytes: Annotated[Number, Field(ge=1, le=1_000_000)] = 200.0
    """That all evidence takes up at most; the oldest goes first."""
    folder: RelativePath | None = None
    """``evidence`` in the state folder unless given."""
    group: Annotated[str, Field(min_length=1)] | None = None
    """That may read it; the daemon's own unless given."""
