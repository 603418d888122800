"""Whom the configuration tells of what is heard: the broker and Prometheus."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from edge_asd.config_types import RelativePath, Section, as_section


class TlsSection(Section):
    """TLS to the broker; present and empty means the system's certificate authorities."""

    ca: RelativePath | None = None
    """Certificate of the authority that signed the broker's."""
    certificate: RelativePath | None = None
    """The client's own, with ``key``."""
    key: RelativePath | None = None

    @model_validator(mode="after")
    def _is_a_pair(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together: give both or none")
        return self


class MqttSection(Section):
    """The broker; without this section events go to the log only."""

    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    tls: Annotated[TlsSection | None, BeforeValidator(as_section)] = None
    username: str | None = None
    password_file: RelativePath | None = None
    """Its first line is the password; looked for in $CREDENTIALS_DIRECTORY first."""

    @field_validator("host")
    @classmethod
    def _is_a_host_name(cls, host: str) -> str:
        try:
            host.encode("idna")
        except UnicodeError:
            raise ValueError(f"{host!r} is not a host name") from None
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
    key: RelativePath
    """Without a passphrase; looked for in $CREDENTIALS_DIRECTORY first."""


class MetricsSection(Section):
    """The Prometheus endpoint; without this section there is none."""

    listen: str = "127.0.0.1:9464"
    """ADDRESS:PORT."""
    tls: Annotated[ServerTlsSection | None, BeforeValidator(as_section)] = None
    username: Annotated[str, Field(min_length=1)] | None = None
    """Who may read, by HTTP basic authentication; with ``password_file``."""
    password_file: RelativePath | None = None
    """Its first line is the password; looked for in $CREDENTIALS_DIRECTORY first."""

    @field_validator("username")
    @classmethod
    def _has_no_colon(cls, name: str | None) -> str | None:
        if name is not None and (":" in name or not name.isprintable()):
            raise ValueError(f"{name!r} must have no colon: it ends the name in basic authentication")
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
        if not host or not port.isdecimal() or not 0 <= int(port) <= 65535:
            raise ValueError("must be ADDRESS:PORT, for example 127.0.0.1:9464")
        return text

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)
