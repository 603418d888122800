"""Certificates of a plant of our own, made by openssl."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

_NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
_AUTHORITY = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign")


class Authority:
    """Signs what servers and clients show."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name = folder, name
        self.certificate, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        extensions = [argument for text in _AUTHORITY for argument in ("-addext", text)]
        _openssl(
            *("req", "-x509", *_NEW_KEY, "-days", "3650", "-subj", f"/CN=plant {name}", *extensions),
            *("-keyout", self._key, "-out", self.certificate),
        )

    def issue(
        self, name: str, *, passphrase: str | None = None, is_expired: bool = False, host: str = "localhost"
    ) -> tuple[Path, Path]:
        """Certificate and key, in files called after ``name``, of a client or of a server that is called ``host``."""
        stem = name if self.name == "ca" else f"{self.name}-{name}"
        certificate, key, request = (self.folder / f"{stem}.{kind}" for kind in ("pem", "key", "csr"))
        names = f"DNS:{host}" + (",IP:127.0.0.1,IP:::1" if host == "localhost" else "")
        _openssl(
            *("req", *_NEW_KEY, "-subj", f"/CN={name}", "-addext", f"subjectAltName={names}"),
            *("-keyout", key, "-out", request),
        )
        # A day that ended before it began: -days takes no past, -not_after is newer than Debian 12.
        days = "-1" if is_expired else "825"
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key),
            *("-CAcreateserial", "-days", days, "-copy_extensions", "copy", "-out", certificate),
        )
        if passphrase is not None:
            _openssl("ec", "-in", key, "-out", key, "-aes256", "-passout", f"pass:{passphrase}")
        return certificate, key


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
