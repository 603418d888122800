"""The microphone with real threads and real processes: calls that hang, devices that are held, stopping."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_asd.audio.claim import Claim
from edge_asd.audio.device import DeviceSettings
from edge_asd.audio.guard import Guard
from edge_asd.audio.microphone import Microphone
from edge_asd.errors import DeviceError

from .fake_device import FakeInput, FakeSoundSystem, FakeWatch, FastTime

REPOSITORY = Path(__file__).parents[2]
FACTOR = 10.0
HANGS = """
import sys, time
from edge_asd.audio import microphone
from edge_asd.audio.device import DeviceSettings
from edge_asd.audio.guard import Guard
from tests.audio.fake_device import FakeInput, FakeSoundSystem, FakeWatch, FastTime
call = sys.argv[1]
world = FastTime(10)
microphone.TICK_SECONDS /= 10
system = FakeSoundSystem(world, FakeInput("hanging mic"))
system.hangs_in = call
watch = FakeWatch.of(world, None)
settings = DeviceSettings("hanging mic", channels=2)
heard = microphone.Microphone(settings, backend=system, clock=world.clock, watch=watch, guard=Guard(limit_seconds=1))
heard.start()
if call == "close":
    while not heard.status.is_heard: time.sleep(0.05)
    system.unplug(system.devices[0])
time.sleep(20)
print("it went on")
"""


def python(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    "call, what",
    [("restart", "starting PortAudio"), ("open", "opening 'hanging mic'"), ("close", "closing 'hanging mic'")],
)
def test_a_call_that_hangs_ends_the_process_with_a_message(call, what):
    process = python(HANGS, call)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (70, "")
    assert err == f"edge-asd: the sound system hangs: {what} has not returned for 1 s\n"


def test_calls_that_return_are_no_hang():
    told: list[str] = []
    guard = Guard(told.append, limit_seconds=0.5)
    for number in range(8):
        with guard.watch(f"opening it for the {number}th time"):
            time.sleep(0.2)
    guard.close()
    assert not told


def test_a_device_that_another_process_has_names_it():
    name = f"held {os.getpid()}"
    script = (
        "import sys\nfrom edge_asd.audio.claim import Claim\n"
        "Claim().take(sys.argv[1], None)\nprint('it is mine', flush=True)\nsys.stdin.read()"
    )
    claim = Claim()
    with subprocess.Popen(
        [sys.executable, "-c", script, name], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        assert holder.stdout.readline() == "it is mine\n"
        for _ in range(5):  # whoever waits asks again and again
            with pytest.raises(DeviceError, match=rf"(?s)^'{name}' is held by -c .*{name} \(pid {holder.pid}\)$"):
                claim.take(name, None)
        told = said_of(name)
        assert f"(pid {holder.pid})" in told
        claim.take(f"{name} not", None)
        holder.stdin.close()
        holder.wait(10)
    claim.take(name, None)
    claim.take(name, None)
    claim.give_back()
    assert said_of(name) == "waiting for the first samples"


def said_of(name: str) -> str:
    """What a microphone says of a device when it was started."""
    world = FastTime(FACTOR)
    heard = Microphone(
        DeviceSettings(name, channels=2),
        backend=FakeSoundSystem(world, FakeInput(name)),
        watch=FakeWatch.of(world, None),
        clock=world.clock,
    )
    heard.start()
    heard.wait_until_known(5)
    reason = heard.status.reason
    heard.stop()
    return str(reason)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> FastTime:
    world = FastTime(FACTOR)
    world.install(monkeypatch)
    return world


def wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it has not come to pass"
        time.sleep(0.005)


@pytest.mark.parametrize("state", ["open", "absent", "refused", "just lost"])
def test_it_stops_soon_whatever_it_is_doing(fast, state):
    device = FakeInput("vmic", is_there=state != "absent", refuses="busy" if state == "refused" else None)
    system = FakeSoundSystem(fast, device)
    heard = Microphone(
        DeviceSettings("vmic", channels=2), backend=system, clock=fast.clock, watch=FakeWatch.of(fast, None)
    )
    heard.start()
    if state in ("open", "just lost"):
        wait_for(lambda: heard.status.is_heard)
        if state == "just lost":
            system.unplug(device)
            wait_for(lambda: not heard.status.is_heard)
    else:
        heard.wait_until_known(5)
        time.sleep(0.1)
    began = time.monotonic()
    heard.stop()
    assert time.monotonic() - began < 0.5
    assert not [s for s in system.streams if s.is_open]
    stretches = heard.take()
    assert sum(s.frames for s in stretches) == heard.ledger.position
    heard.stop()  # twice is once


def test_threads_and_all_it_is_lost_and_found_again(fast):
    device = FakeInput("vmic")
    system = FakeSoundSystem(fast, device)
    heard = Microphone(
        DeviceSettings("vmic", channels=2), backend=system, clock=fast.clock, watch=FakeWatch.of(fast, None)
    )
    heard.start()
    for _ in range(5):
        wait_for(lambda: heard.status.is_heard)
        system.unplug(device)
        wait_for(lambda: not heard.status.is_heard, 4 / FACTOR + 1)
        system.plug(device)
    wait_for(lambda: heard.status.is_heard, 10 / FACTOR + 1)
    heard.stop()
    stretches = heard.take()
    position = 0
    for stretch in stretches:
        assert stretch.start == position
        position += stretch.frames
    assert position == heard.ledger.position
    assert len(system.streams) >= 6
    assert position == pytest.approx((fast.clock() - system.began) * 16_000, rel=0.1)


def test_two_calls_in_a_row_are_not_one_that_hangs():
    script = (
        "import time\nfrom edge_asd.audio.guard import Guard\ng = Guard(limit_seconds=0.5)\n"
        "for _ in range(8):\n    with g.watch('starting PortAudio'): time.sleep(0.2)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=30, check=False).returncode == 0
