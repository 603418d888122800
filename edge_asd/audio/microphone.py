"""A microphone that can be trusted: opened by name, watched, opened again when it is lost, every sample accounted for.

One thread owns all calls into the sound system. The only sure sign of a lost device is that no more blocks come
(hardware that was pulled out shows no other), so time since the last block is what is watched; a stream that ends or is
moved to another source is noticed besides. Then everything is closed, the sound system is initialised anew, and the
device is looked for until it is back.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from edge_asd.audio.claim import Claim
from edge_asd.audio.device import DeviceSettings, find_device
from edge_asd.audio.guard import Guard
from edge_asd.audio.ledger import Block, Disturbance, Ledger, Stretch
from edge_asd.audio.opening import Opener, Opening, OpenInput
from edge_asd.audio.portaudio import Backend, OnBlock, PortAudio
from edge_asd.audio.sound_server import StreamWatch
from edge_asd.clock import boot_time
from edge_asd.errors import ConfigurationError, DeviceError

STALL_SECONDS = 2.5
"""A device that gave nothing for so long is lost. Bursts of 2 s have been seen from sound servers."""
TICK_SECONDS = 0.1
_BACK_OFF_SECONDS = (0.5, 1.0, 2.0, 4.0)
"""Before the device is looked for again; then the last of them again and again."""
_PAUSE_SECONDS = 1.0
"""A round of the loop that took so much longer than a tick: this process, not the device, stood still."""
_ANSWER_SECONDS = 0.05
_UNDER_WAY_SECONDS = 0.5
"""When listening ends, samples of so much time may still be on their way; of more, they are lost."""
_RATE_UNTIL_KNOWN = 16_000
_MOST_WAITING_SECONDS = 120.0
"""Sound that may wait for `take`."""


@dataclass(frozen=True)
class Status:
    """What the device is like now."""

    is_heard: bool
    reason: str | None
    """Why it is not heard."""
    opening: Opening | None = None


class Microphone:
    """One input device, from `start` to `stop`."""

    def __init__(
        self,
        settings: DeviceSettings,
        *,
        needed_channels: int = 1,
        guard: Guard | None = None,
        backend: Backend | None = None,
        watch: Callable[[], StreamWatch] = StreamWatch,
        clock: Callable[[], float] = boot_time,
    ) -> None:
        """
        Args:
            settings: which device.
            needed_channels: it must have so many.
            guard: watches the calls into the sound system.
            backend: PortAudio unless given.
            watch: makes a watch over a stream that was just opened.
            clock: seconds that never step.
        """
        self._settings, self._needed = settings, needed_channels
        self._guard = guard or Guard()
        self._backend: Backend = backend or PortAudio()
        self._opener = Opener(self._backend, self._guard, watch)
        self._clock = clock
        self._arrived: deque[Block] = deque()
        self._awaiting: deque[Block] = deque()
        """Blocks that nobody has vouched for yet."""
        self._last_arrival = clock()
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._settled = threading.Event()
        self._out: deque[Stretch] = deque()
        self._out_seconds = 0.0
        self._has_given = False
        """Since the device was opened."""
        self._lock = threading.Lock()
        self._disturbances: list[Disturbance] = []
        self._thread = threading.Thread(target=self._run, name="microphone", daemon=True)
        self._input: OpenInput | None = None
        self._before: Opening | None = None
        self._claim = Claim()
        self._needs_restart = True
        """PortAudio has not been started, or a stream that it gave has been lost."""
        self.ledger = Ledger(_RATE_UNTIL_KNOWN, clock())
        """For reading only."""
        self.status = Status(False, "the device has not been opened yet")
        self.turns = 0
        """Grows as long as the thread that owns the device does not hang."""
        self.failure: ConfigurationError | None = None
        """Why nothing can ever be heard, whatever is plugged in."""

    def start(self) -> None:
        """Begin to listen, in a thread of its own."""
        self.ledger = Ledger(_RATE_UNTIL_KNOWN, self._clock())
        self._thread.start()

    def wait_until_known(self, seconds: float) -> bool:
        """Wait until the device is open, or declared absent; false where that takes longer."""
        return self._settled.wait(seconds)

    def stop(self) -> None:
        """Close the device; `take` gives what is left."""
        self._stopping.set()
        self._woken.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._guard.close()

    def take(self) -> list[Stretch]:
        """What has become certain since the last call, in order and without a hole."""
        with self._lock:
            taken, self._out, self._out_seconds = list(self._out), deque(), 0.0
        return taken

    def take_disturbances(self) -> list[Disturbance]:
        """What happened since the last call."""
        with self._lock:
            taken, self._disturbances = self._disturbances, []
        return taken

    def _run(self) -> None:
        rounds = 0
        while not self._stopping.is_set() and self.failure is None:
            self._has_given = False
            try:
                self._round()
            except Exception as error:  # whatever it is, the listening goes on
                self._needs_restart = True
                self._note_absence(f"the sound system failed: {error!r}")
            if self._stopping.is_set() or self.failure is not None:
                break
            self._needs_restart |= self._has_given
            rounds = 0 if self._has_given else rounds
            try:
                self._close()
            except Exception as error:
                self._note_absence(f"the sound system failed: {error!r}")
            self._rest(_BACK_OFF_SECONDS[min(rounds, len(_BACK_OFF_SECONDS) - 1)])
            rounds += 1
        self._end()

    def _round(self) -> None:
        """Look for the device, and listen until it is lost."""
        try:
            # Asked each time, so that it is known what each start has seen.
            may_find_more = self._backend.may_find_more()
            if may_find_more or self._needs_restart:
                with self._guard.watch("starting PortAudio"):
                    self._backend.restart()
            self._needs_restart = False
            opened = self._open()
            if not self._settled.is_set():
                self.status = Status(False, "waiting for the first samples", opened.opening)
            self._settled.set()
            reason = self._listen(opened)
        except ConfigurationError as error:
            self.failure = error
            reason = str(error)
        except DeviceError as error:
            reason = str(error)
        if not self._stopping.is_set():
            self._note_absence(reason)

    def _note_absence(self, reason: str) -> None:
        self.status = Status(False, reason)
        self._settled.set()

    def _end(self) -> None:
        """Close the books, and what is open."""
        was_open = self._input is not None
        try:
            self._close()
            with self._guard.watch("leaving PortAudio"):
                self._backend.shut_down()
        except Exception as error:  # there is nobody left to do anything about it
            self._note_absence(f"the sound system failed: {error!r}")
        if was_open:
            self._give(self.ledger.end_stream())
        if not was_open or self._awaiting or self._clock() - self._last_arrival > _UNDER_WAY_SECONDS:
            self._give(self.ledger.lose_until(self._clock()))
        self._claim.give_back()

    def _open(self) -> OpenInput:
        """Open the device that is meant, and that it was before."""
        before = self._before
        card_before = before.card if before is not None else None
        device, card = find_device(self._backend.inputs(), self._settings, before=card_before)
        self._claim.take(device.name, card)
        self._input = opened = self._opener.open(
            device,
            card,
            self._settings,
            needed_channels=self._needed,
            before=before,
            new_sink=self._new_sink,
        )
        self._before = opening = opened.opening
        if self.ledger.rate != opening.rate:
            self.ledger.change_rate(opening.rate)
        self.ledger.begin_stream()
        self._has_given = False
        return opened

    def _new_sink(self) -> OnBlock:
        """For the blocks of one stream; runs on the sound system's thread, and does as little as can be."""
        self._arrived = arrived = deque[Block]()

        def on_block(block: Block) -> None:
            arrived.append(block)
            self._woken.set()

        return on_block

    def _listen(self, opened: OpenInput) -> str:
        """Take blocks until the device is lost, and say why, or until stopped."""
        self._last_arrival = resumed = tick = self._clock()
        self._awaiting.clear()
        while not self._stopping.is_set():
            self._woken.wait(TICK_SECONDS)
            self._woken.clear()
            self.turns += 1
            now = self._clock()
            if now - tick > TICK_SECONDS + _PAUSE_SECONDS:
                self._last_arrival = resumed = now
            tick = now
            has_ended = opened.stream.has_ended  # asked before its last blocks are taken
            while self._arrived:
                self._awaiting.append(self._arrived.popleft())
                self._last_arrival = now
            for block in _vouched(self._awaiting, opened.watch):
                self._give(self.ledger.take(block))
            if opened.watch is not None and opened.watch.moved_to is not None:
                return f"the sound server has moved the stream to {opened.watch.moved_to!r}"
            if has_ended:
                return f"the sound system has ended the stream of {self._settings}"
            if now - self._last_arrival > STALL_SECONDS:
                return f"{self._settings} has given no samples for {STALL_SECONDS:g} s"
            if self._awaiting and now - max(self._awaiting[0].arrived, resumed) > STALL_SECONDS:
                return "the sound server does not say where the sound comes from"
            if self.ledger.is_hopeless:
                return f"{self._settings} does not keep to its rate of {opened.opening.rate} Hz: nothing can be placed"
            if self._has_given and not self.status.is_heard:
                self.status = Status(True, None, self._before)
        for block in _vouched(self._awaiting, opened.watch):
            self._give(self.ledger.take(block))
        return "stopped"

    def _give(self, stretches: Iterable[Stretch]) -> None:
        with self._lock:
            for stretch in stretches:
                self._out.append(stretch)
                self._out_seconds += stretch.frames / stretch.rate
                self._has_given |= stretch.samples is not None
            if self._out_seconds > _MOST_WAITING_SECONDS:
                # Nobody takes: rather than fill the memory, give it up, and count it.
                heard = sum(s.frames / s.rate for s in self._out if s.samples is not None)
                self.ledger.give_up(round(heard * self.ledger.rate))
                first, last = self._out[0], self._out[-1]
                start = round(first.start * last.rate / first.rate)
                self._out = deque([Stretch(start, last.start + last.frames - start, last.rate, None)])
                self._out_seconds = 0.0
            self._disturbances += self.ledger.disturbances
            self.ledger.disturbances.clear()

    def _rest(self, seconds: float) -> None:
        """Wait before the next try; time goes on, and what it would have brought is lost."""
        end = self._clock() + seconds
        while not self._stopping.is_set() and (now := self._clock()) < end:
            self._give(self.ledger.lose_until(now))
            self._stopping.wait(TICK_SECONDS)
            self.turns += 1
        self._give(self.ledger.lose_until(self._clock()))

    def _close(self) -> None:
        """Close what is open."""
        opened, self._input = self._input, None
        if opened is not None:
            self._opener.close(opened)


def _vouched(awaiting: deque[Block], watch: StreamWatch | None) -> Iterator[Block]:
    """Blocks that are known to come from the right source."""
    if watch is not None and awaiting:
        watch.ask()
        watch.wait_for_answer(_ANSWER_SECONDS)
    while awaiting and (watch is None or awaiting[0].arrived <= watch.vouched_until):
        yield awaiting.popleft()
