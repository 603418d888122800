"""The microphone on a made-up sound system: lost, found again, never mistaken, every sample accounted for."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from edge_asd.audio.device import DeviceSettings
from edge_asd.audio.ledger import Block, Ledger, Stretch
from edge_asd.audio.microphone import Microphone, Status
from edge_asd.audio.sound_server import Source
from edge_asd.errors import ConfigurationError

from .fake_device import BLOCK_SECONDS, FRAME_NUMBERS, FakeInput, FakeSoundSystem, FakeWatch, SimulatedTime

RATE = 16_000
OURS, OTHER = 1.0, 2.0


class Session:
    """A microphone in simulated time, and all that it gave."""

    def __init__(self, world: SimulatedTime, patch: pytest.MonkeyPatch, *devices: FakeInput, **options: Any) -> None:
        world.install(patch)
        self.world = world
        self.system = FakeSoundSystem(world, *devices, sys=options.pop("sys", None))
        settings = options.pop("settings", DeviceSettings("vmic", channels=2))
        options.setdefault("watch", FakeWatch.of(world, None))
        self.microphone = Microphone(settings, backend=self.system, clock=world.clock, **options)
        self.stretches: list[Stretch] = []
        self.takes = True
        self.on_status: Callable[[Status], None] = lambda _: None
        self.history: list[tuple[float, Status]] = []
        """Each new status, and when it came."""

    def run(self, seconds: float) -> None:
        """Listen for so long, then stop."""
        self.world.at(self.world.now, self._look)
        # `stop` waits for the thread on which simulated time calls it.
        self.world.at(self.world.now + seconds, self.microphone._stopping.set)
        self.microphone.start()
        self.microphone._stopping.wait()
        self.microphone.stop()
        self.stretches += self.microphone.take()

    def at(self, second: float, action: Callable[[], Any]) -> None:
        self.world.at(self.system.began + second, action)

    def _look(self) -> None:
        if self.takes:
            self.stretches += self.microphone.take()
        status = self.microphone.status
        if not self.history or self.history[-1][1] != status:
            self.history.append((self.world.now - self.system.began, status))
        self.on_status(status)
        self.world.at(self.world.now + 0.05, self._look)

    def reasons(self) -> list[str | None]:
        return [status.reason for _, status in self.history]

    def check_books(self, rate: int = RATE) -> None:
        """No hole, nothing twice, everything in its place, and as much as time has passed."""
        ledger, block = self.microphone.ledger, BLOCK_SECONDS * rate
        assert self.stretches[0].start == 0 and ledger.rate == rate
        for before, stretch in pairwise(self.stretches):
            end = round((before.start + before.frames) * stretch.rate / before.rate)
            assert stretch.start == pytest.approx(end, abs=1 if stretch.rate != before.rate else 0)
        for stretch in self.heard():
            assert stretch.samples is not None
            assert (stretch.start - int(stretch.samples[0, 0]) + block) % FRAME_NUMBERS <= 2 * block
        assert ledger.captured + ledger.lost == self.stretches[-1].start + self.stretches[-1].frames
        assert abs(ledger.position - (self.world.now - self.system.began) * rate) <= block

    def heard(self) -> list[Stretch]:
        return [s for s in self.stretches if s.samples is not None]

    def marks(self) -> set[float]:
        return {float(m) for s in self.heard() if s.samples is not None for m in (s.samples[0, -1], s.samples[-1, -1])}


@pytest.fixture
def world() -> SimulatedTime:
    return SimulatedTime()


def test_a_device_is_heard_and_nothing_is_lost(world, monkeypatch):
    session = Session(world, monkeypatch, FakeInput("vmic"))
    session.run(60)
    session.check_books()
    assert session.reasons()[-1] is None and session.history[-1][0] <= 2
    assert session.microphone.ledger.lost <= RATE * (0.25 + BLOCK_SECONDS)  # until it was open
    assert session.marks() == {OURS}


def cycles(session: Session, ours: FakeInput, count: int, twin: FakeInput | None, chance: random.Random) -> list[Any]:
    """Pull it out and put it back, so many times; gives how long it took to notice each, and to be back."""
    took: list[Any] = []
    moment = [0.0, 0.0]

    def unplug() -> None:
        session.system.unplug(ours)
        moment[0], took_now = session.world.now, [None, None]
        took.append(took_now)
        if twin is not None:
            session.system.plug(twin)
        away = chance.choice([0.02, 0.5, 3.0, 9.0]) * chance.uniform(0.5, 2)
        session.world.at(session.world.now + away, plug)

    def plug() -> None:
        session.system.plug(ours, chance.choice([1, 2, 5]))
        moment[1] = session.world.now

    def look(status: Status) -> None:
        if not took or took[-1][1] is not None:
            if status.is_heard and len(took) < count and session.world.now > moment[0]:
                moment[0] = session.world.now + chance.uniform(0.0, 4.0)
                session.world.at(moment[0], unplug)
        elif took[-1][0] is None:
            if not status.is_heard:
                took[-1][0] = session.world.now - moment[0]
        elif status.is_heard and ours.is_there:
            took[-1][1] = session.world.now - moment[1]

    session.on_status = look
    return took


def test_a_hundred_times_pulled_out_and_a_hundred_times_back(world, monkeypatch, tmp_path):
    ours = FakeInput("USB Audio: -", OURS, 1, "08bb:2902:A1", "1-1.4")
    longer = FakeInput("USB Audio 2: -", OTHER, 3, "0d8c:0014", "1-1.3")
    twin = FakeInput("USB Audio: -", OTHER, 4, "0d8c:0015", "1-1.2", is_there=False)
    settings = DeviceSettings("USB Audio")
    session = Session(world, monkeypatch, ours, longer, twin, settings=settings, sys=tmp_path)
    session.system.install(monkeypatch)
    took = cycles(session, ours, 100, twin, random.Random(5))
    session.run(2000)
    noticed, back = ([t[n] for t in took] for n in (0, 1))
    assert len(took) == 100 and None not in noticed and None not in back
    assert max(noticed) <= 3
    assert max(back) <= 10
    assert session.marks() == {OURS}
    assert not longer.opened and not twin.opened
    assert not session.microphone.take_disturbances(), "an outage is a status, and no gap besides"
    session.check_books()


def test_started_before_the_device_exists_it_waits_and_says_so(world, monkeypatch):
    device = FakeInput("vmic", is_there=False)
    session = Session(world, monkeypatch, FakeInput("vmic 2", OTHER), device)
    session.at(3600, lambda: session.system.plug(device))
    session.run(3650)
    session.check_books()
    assert session.reasons()[:2] == ["no input 'vmic' is there; inputs are: 'vmic 2'", None]
    assert session.history[1][0] <= 3610
    assert session.marks() == {OURS}


def test_a_stream_that_ends_is_noticed_at_once_and_soon_opened_again(world, monkeypatch):
    device = FakeInput("vmic", is_there=False)
    session = Session(world, monkeypatch, device)
    session.at(100, lambda: session.system.plug(device))  # long absent: looked for now and then only
    session.at(150, lambda: session.system.streams[-1].end())
    session.run(200)
    session.check_books()
    (when, status), (again, _) = session.history[-2:]
    assert status.reason == "the sound system has ended the stream of 'vmic'" and when <= 150.2
    assert again <= 153, "after it was heard it is looked for at once"


@pytest.mark.parametrize("seconds", [0.3, 1.9])
def test_a_device_that_gives_nothing_for_a_moment_is_not_lost(world, monkeypatch, seconds):
    session = Session(world, monkeypatch, FakeInput("vmic"))
    session.at(20, lambda: setattr(session.system, "is_stopped", True))
    session.at(20 + seconds, lambda: setattr(session.system, "is_stopped", False))
    session.run(60)
    assert len(session.system.streams) == 1 and len(session.history) == 3


def test_a_process_that_stood_still_has_not_lost_its_device(world, monkeypatch):
    session = Session(world, monkeypatch, FakeInput("vmic"))
    session.at(20, lambda: world.stand_still(30))
    session.run(100)
    session.check_books()
    assert len(session.system.streams) == 1 and session.history[-1][0] < 5


def test_a_device_that_opens_and_gives_nothing_is_tried_again_and_again(world, monkeypatch):
    device = FakeInput("vmic", is_dead=True)
    session = Session(world, monkeypatch, device)
    session.at(100, lambda: setattr(device, "is_dead", False))
    session.run(130)
    session.check_books()
    assert 10 <= len(device.opened) <= 20
    assert session.reasons()[-2:] == ["'vmic' has given no samples for 2.5 s", None]
    assert session.history[-1][0] <= 110


def test_a_device_that_refuses_is_tried_again_and_again(world, monkeypatch):
    device = FakeInput("vmic", refuses="Device unavailable [PaErrorCode -9985]")
    session = Session(world, monkeypatch, device)
    session.at(50, lambda: setattr(device, "refuses", None))
    session.run(80)
    session.check_books()
    assert session.reasons()[-2:] == ["'vmic' cannot be opened: Device unavailable [PaErrorCode -9985]", None]
    assert 50 < session.history[-1][0] <= 60


def test_whatever_the_sound_system_raises_the_listening_goes_on(world, monkeypatch):
    session = Session(world, monkeypatch, FakeInput("vmic"))
    session.system.fails_with = ZeroDivisionError("by chance")
    session.at(10, lambda: setattr(session.system, "fails_with", None))
    session.run(40)
    session.check_books()
    assert "the sound system failed: ZeroDivisionError" in str(session.reasons()[0])
    assert session.reasons()[-1] is None


@pytest.mark.parametrize("card", [None, 1])
def test_too_few_channels_are_no_microphone(world, monkeypatch, tmp_path, card):
    device = FakeInput("vmic", card=card, channels=2)
    wanted = DeviceSettings("vmic", channels=None if card else 2)
    session = Session(world, monkeypatch, device, needed_channels=3, sys=tmp_path, settings=wanted)
    session.system.install(monkeypatch)
    session.run(20)
    session.check_books()
    assert "has 2 channel(s); channel 3 is configured" in str(session.reasons()[-1])
    assert not session.heard()


@pytest.mark.parametrize(
    "rate, rates, wanted, opened",
    [
        (44_100, (44_100, 48_000), None, 44_100),
        (44_100, (48_000, 8_000), None, 48_000),
        (48_000, (8_000,), None, 8_000),
        (44_100, (44_100, 16_000), 16_000, 16_000),
    ],
)
def test_a_rate_that_a_device_does_not_take_is_replaced(world, monkeypatch, rate, rates, wanted, opened):
    device = FakeInput("vmic", rate=rate, rates=rates)
    session = Session(world, monkeypatch, device, settings=DeviceSettings("vmic", channels=2, rate=wanted))
    session.run(30)
    assert session.microphone.ledger.rate == opened and device.opened == [(opened, 2)]
    assert {s.rate for s in session.heard()} == {opened}
    assert session.microphone.ledger.position == pytest.approx(30 * opened, abs=BLOCK_SECONDS * opened + 1)


def served(world: SimulatedTime, patch: pytest.MonkeyPatch, **options: Any) -> tuple[Session, Any]:
    """A session through a sound server, and its watch."""
    watch = FakeWatch.of(world, Source("line_in", RATE, 2))
    return Session(world, patch, FakeInput("vmic"), watch=watch, settings=DeviceSettings("vmic", channels=2)), watch


def test_nothing_of_another_source_is_given_when_the_stream_is_moved(world, monkeypatch):
    session, watch = served(world, monkeypatch)

    def move() -> None:
        session.system.streams[-1].device = FakeInput("other", OTHER)
        session.system.devices[0].mark = OTHER
        watch.moved_to, watch.source = "other", Source("other", RATE, 2)

    def move_back() -> None:
        session.system.devices[0].mark = OURS
        watch.moved_to, watch.source = None, Source("line_in", RATE, 2)

    session.at(20.05, move)
    session.at(60, move_back)
    session.run(100)
    session.check_books()
    assert session.marks() == {OURS}
    assert "the sound server has moved the stream to 'other'" in session.reasons()
    assert "'vmic' was 'line_in' at the sound server, and is 'other' now" in session.reasons()
    assert session.reasons()[-1] is None and session.history[-1][0] <= 70


def test_a_sound_server_that_does_not_answer_is_noticed(world, monkeypatch):
    session, watch = served(world, monkeypatch)
    session.at(20, lambda: setattr(watch, "is_silent", True))
    session.at(60, lambda: setattr(watch, "is_silent", False))
    session.run(100)
    session.check_books()
    reasons = session.reasons()
    silent = reasons.index("the sound server does not say where the sound comes from")
    assert session.history[silent][0] <= 23
    assert reasons[silent + 1 :] == ["the sound server has not answered for 2 s", None]
    assert session.history[-1][0] <= 70
    assert not [s for s in session.heard() if 20.2 * RATE < s.start < 59 * RATE]


def test_what_nobody_takes_is_given_up_and_counted(world, monkeypatch):
    session = Session(world, monkeypatch, FakeInput("vmic"))
    session.takes = False
    session.run(1000)
    session.check_books()
    kept = sum(s.frames for s in session.heard())
    assert 0 < kept <= 125 * RATE
    assert sum(s.frames for s in session.stretches) == pytest.approx(1000 * RATE, abs=BLOCK_SECONDS * RATE)
    assert session.stretches[-1].samples is not None, "the newest are kept"


def test_without_portaudio_nothing_can_ever_be_heard(world, monkeypatch):
    session = Session(world, monkeypatch, FakeInput("vmic"))
    session.system.fails_with = error = ConfigurationError("device: PortAudio is needed")
    session.microphone.start()
    session.microphone.wait_until_known(5)
    assert session.microphone.failure is error
    session.microphone.stop()


def test_blocks_of_the_first_try_are_not_given_as_those_of_the_second(world, monkeypatch):
    """A sound server's device is opened, its own rate and channels learned, and opened again."""
    watch = FakeWatch.of(world, Source("line_in", 48_000, 2))
    device = FakeInput("vmic", rate=44_100, rates=(44_100, 48_000), channels=32)
    session = Session(world, monkeypatch, device, watch=watch, settings=DeviceSettings("vmic"))
    session.run(20)
    assert device.opened == [(44_100, 1), (48_000, 2)]
    assert {s.samples.shape[1] for s in session.heard()} == {2}
    session.check_books(48_000)


@pytest.mark.parametrize("state", ["stalled", "opening"])
def test_stopped_without_sound_the_books_still_balance(world, monkeypatch, state):
    session = Session(world, monkeypatch, FakeInput("vmic", is_dead=state == "opening"))
    session.at(20, lambda: session.system.unplug(session.system.devices[0]))
    session.run(22.2 if state == "stalled" else 2.3)
    session.check_books()


def test_stopping_before_the_start_is_no_error():
    Microphone(DeviceSettings("x")).stop()


def test_after_a_failure_the_status_says_it(world, monkeypatch):
    session = Session(world, monkeypatch, FakeInput("vmic"))
    session.system.fails_with = ConfigurationError("device: PortAudio is needed")
    session.microphone.start()
    session.microphone.wait_until_known(5)
    session.microphone.stop()
    assert "PortAudio" in str(session.microphone.status.reason)


def test_a_pcm_that_does_not_say_its_channels_must_be_told(world, monkeypatch):
    """ALSA's plug would mix two channels into the one that is asked for."""
    session = Session(world, monkeypatch, FakeInput("plug", channels=32), settings=DeviceSettings("plug"))
    session.run(20)
    assert session.reasons()[-1] == "'plug' does not say how many channels it has: say so with device.channels"
    assert not session.heard()


def test_a_source_that_is_demanded_is_the_only_one_taken(world, monkeypatch):
    """PipeWire gives a stream another source where its own is not there, at the first opening already."""
    watch = FakeWatch.of(world, Source("built_in", 48_000, 2))
    wanted = DeviceSettings("vmic", source="line_in")
    device = FakeInput("vmic", rate=44_100, rates=(44_100, 48_000), channels=32)
    session = Session(world, monkeypatch, device, watch=watch, settings=wanted)
    session.run(20)
    assert session.reasons()[-1] == "'vmic' is 'built_in', and not 'line_in' as device.source says"
    assert not session.heard()


@pytest.mark.parametrize("pace", [0.8, 1.1])
def test_a_device_that_keeps_to_no_rate_is_not_called_heard(pace):
    """Its blocks come, and none of them can be placed."""
    ledger = Ledger(RATE, 0.0)
    ledger.begin_stream()
    blocks = (Block(np.zeros((RATE // 10, 1), np.float32), n / 10 / pace) for n in range(1, 600))
    for block in blocks:
        list(ledger.take(block))
        if ledger.is_hopeless:
            break
    assert ledger.is_hopeless
    ledger.begin_stream()
    assert not ledger.is_hopeless


def test_where_nothing_changes_portaudio_is_not_started_again_and_again(world, monkeypatch):
    """It loses memory each time, and a device may be away for months."""
    device = FakeInput("vmic", is_there=False)
    session = Session(world, monkeypatch, device)
    session.system.is_unchanged = True
    session.at(3600, lambda: (session.system.plug(device), setattr(session.system, "is_unchanged", False)))
    session.run(3650)
    assert session.reasons()[-1] is None, "heard within ten seconds of its coming"
    assert session.system.restarts <= 15
    session.check_books()
