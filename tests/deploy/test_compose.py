"""The compose file: what it mounts is there, what it asks for is made, and nothing floats."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
TEXT = (DEPLOY / "compose.yaml").read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES = COMPOSE["services"]


def test_what_is_mounted_is_there() -> None:
    for name, service in SERVICES.items():
        for volume in service["volumes"]:
            source, target, *mode = volume.split(":")
            assert target.startswith("/")
            if source.startswith("./"):
                assert (DEPLOY / source).exists(), f"{name} mounts {source}"
                assert mode == ["ro"], f"{name} could change {source}"
            else:
                assert source in COMPOSE["volumes"]


def test_images_are_pinned_and_loopback_stays_loopback() -> None:
    for service in SERVICES.values():
        assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+", service["image"])
    for name in ("prometheus", "alertmanager"):  # they have no passwords
        assert all(port.startswith("127.0.0.1:") for port in SERVICES[name]["ports"])
    assert SERVICES["mosquitto"]["image"] in (DEPLOY / "make-secrets.sh").read_text()


def test_paths_in_the_configurations_are_mounted() -> None:
    files = {
        "mosquitto": DEPLOY / "mosquitto" / "mosquitto.conf",
        "prometheus": DEPLOY / "prometheus" / "prometheus.yml",
        "alertmanager": DEPLOY / "alertmanager" / "alertmanager.yml",
    }
    for name, path in files.items():
        mounted = {f"/run/secrets/{secret}" for secret in SERVICES[name]["secrets"]}
        assert set(re.findall(r"/run/secrets/[\w.-]+", path.read_text())) == mounted, name
    asked = set(re.findall(r"/run/secrets/([\w.-]+)", str(SERVICES["grafana"]["environment"])))
    assert asked == set(SERVICES["grafana"]["secrets"])


def test_settings_are_explained() -> None:
    asked = set(re.findall(r"\$\{(\w+):-", TEXT))
    explained = set(re.findall(r"^(\w+)=", (DEPLOY / ".env.example").read_text(), re.MULTILINE))
    assert asked == explained


def test_secrets_are_made_once_and_kept(tmp_path: Path) -> None:
    if shutil.which("mosquitto_passwd") is None:
        pytest.skip("mosquitto is not installed: make apt")
    for name in ("make-secrets.sh", "mosquitto"):
        source = DEPLOY / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    command = ["sh", str(tmp_path / "make-secrets.sh"), "server.plant-3.example", "10.1.2.3"]
    subprocess.run(command, check=True, capture_output=True)
    secrets = tmp_path / "secrets"
    made = {path.name: path.read_bytes() for path in secrets.iterdir()}
    assert {Path(s["file"]).name for s in COMPOSE["secrets"].values()} <= set(made)
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    assert stat.S_IMODE((secrets / "ca.key").stat().st_mode) == 0o600
    assert made["mqtt-edge-password"] not in made["mqtt-passwd"], "in the clear"
    names = subprocess.run(
        ["openssl", "x509", "-in", str(secrets / "server.crt"), "-noout", "-ext", "subjectAltName"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "DNS:server.plant-3.example" in names and "IP Address:10.1.2.3" in names
    subprocess.run(command, check=True, capture_output=True)
    assert {path.name: path.read_bytes() for path in secrets.iterdir()} == made
