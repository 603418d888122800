"""A simulated slide rail: a carriage that a motor and a toothed belt move to and fro, and what can go wrong with it.

``clips.py`` puts it into a factory. Stroke by stroke: a speed profile, the forces that follow from it, and the body and
room that they excite. The faults are those that MIMII names for slide rails (Purohit et al., "MIMII Dataset", DCASE
2019). A fault changes how a machine sounds, not how loud it is: whatever its fault, it has the same mean power.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence
from numpy.typing import NDArray

from edge_asd.logmel import Float32Array, Float64Array

SAMPLE_RATE = 16_000
"""Hz, of everything the demo makes."""

_HIGHEST_TONE_HZ = 6_500.0  # partials above it are left out, so that no stroke, however brisk, folds back at 8 kHz
_MODES = ((29, 500.0, 1100.0), (31, 1600.0, 2600.0), (37, 3000.0, 3900.0), (41, 4200.0, 5400.0), (43, 5900.0, 7300.0))


class Fault(StrEnum):
    """What may be wrong with a slide rail."""

    RAIL_DAMAGE = "rail_damage"  # a dent: each bearing of the carriage knocks and scrapes when it passes the place
    LOOSE_BELT = "loose_belt"  # its tones wander and flutter, and it slaps when the carriage starts and brakes
    NO_GREASE = "no_grease"  # rough, chattering friction, and squeals where the carriage sticks and slips


@dataclass(frozen=True)
class SlideRail:
    """What makes one machine sound unlike the next of its type; made by ``slide_rail``."""

    number: int
    """The number in its id: 4 in ``id_04``."""
    stroke_seconds: float
    """Time of a forward stroke, without the dwell."""
    return_ratio: float
    """Time of a backward stroke as a fraction of a forward one."""
    dwell_seconds: float
    """Standstill after each stroke."""
    ramp_fraction: float
    """Part of the stroke spent speeding up, and the same again braking."""
    pole_hz: float
    """Pole-passing frequency of the motor at full speed."""
    belt_hz: float
    """Tooth-mesh frequency of the belt at full speed."""
    tone_db: float
    """Tones of motor and belt relative to friction, before the body."""
    friction_tilt_db: float
    """Colour of the friction noise at full speed, dB per octave."""
    resonances_hz: tuple[float, ...]
    """Modes of the body, heard in every knock and as bands in the friction noise."""
    quality: float
    """Quality factor of those modes, no unit."""
    room_seconds: float
    """Time in which the room's answer falls by 60 dB."""
    damage_place: float
    """Where on the rail its damage would be, as a fraction of the travel."""


def slide_rail(machine_id: str) -> SlideRail:
    """The slide rail of an id such as ``id_00``; any number makes a machine, always the same one.

    Raises:
        ValueError: the id is not ``id_`` and a number.
    """
    if not re.fullmatch(r"id_\d{1,6}", machine_id, re.ASCII):
        raise ValueError(f"{machine_id!r} is not a machine id; expected id_ and a number, such as id_00")
    number = int(machine_id[3:])

    def spread(prime: int, low: float, high: float) -> float:
        # A Richtmyer sequence, not random draws: neighbouring numbers land far apart in every property.
        return low + (high - low) * ((0.35 + number * math.sqrt(prime)) % 1.0)

    return SlideRail(
        number=number,
        stroke_seconds=spread(2, 0.55, 1.35),
        return_ratio=spread(3, 0.88, 1.12),
        dwell_seconds=spread(5, 0.18, 0.42),
        ramp_fraction=spread(7, 0.18, 0.36),
        pole_hz=spread(11, 150.0, 330.0),
        belt_hz=spread(13, 480.0, 1250.0),
        tone_db=spread(17, -7.0, 3.0),
        friction_tilt_db=spread(19, -5.0, 1.0),
        resonances_hz=tuple(spread(prime, low, high) for prime, low, high in _MODES),
        quality=spread(47, 14.0, 32.0),
        room_seconds=spread(53, 0.12, 0.30),
        damage_place=spread(59, 0.35, 0.65),
    )


class Filter:
    """A finite impulse response, applied block by block as if to the whole (overlap-add)."""

    def __init__(self, response: Float64Array) -> None:
        self._response = response.astype(np.float32)
        self._spectra: dict[int, NDArray[np.complex64]] = {}
        self._tail = np.zeros(len(response) - 1, np.float32)

    def __call__(self, block: Float32Array) -> Float32Array:
        """The next block through the filter; float32, shape ``[sample]`` in and out."""
        length = len(block) + len(self._tail)
        size = -(-length // 4096) * 4096  # small factors only, for a fast transform
        if size not in self._spectra:
            self._spectra[size] = np.fft.rfft(self._response, size).astype(np.complex64, copy=False)
        spectrum = np.fft.rfft(block, size) * self._spectra[size]
        out = np.fft.irfft(spectrum, size)[:length].astype(np.float32, copy=False)
        out[: len(self._tail)] += self._tail
        self._tail = out[len(block) :].copy()
        return out[: len(block)]


def _unit_energy(response: Float64Array) -> Float64Array:
    """A response that leaves the power of white noise as it is."""
    return response / math.sqrt(float(np.sum(response**2)))


def colour(hz: tuple[float, ...], gain_db: tuple[float, ...]) -> Float64Array:
    """Response that colours white noise, unit energy, shape ``[1024]``: at the rising ``hz`` it has ``gain_db``."""
    bins = np.maximum(1.0, np.fft.rfftfreq(1024, 1.0 / SAMPLE_RATE))
    magnitude = 10.0 ** (np.interp(np.log(bins), np.log(hz), gain_db) / 20.0)
    return _unit_energy(np.roll(np.fft.irfft(magnitude), 512) * np.hanning(1024))


def ringing(modes_hz: tuple[float, ...], quality: float, seconds: float) -> Float64Array:
    """Answer of damped modes to a knock, unit energy, shape ``[seconds * SAMPLE_RATE]``."""
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    answer = np.zeros(len(time))
    for place, hz in enumerate(modes_hz):
        answer += _unit_energy(np.exp(-np.pi * hz / quality * time) * np.sin(2.0 * np.pi * hz * time + 2.4 * place))
    return _unit_energy(answer)


def wander(rng: Generator, samples: int, hz: float) -> Float32Array:
    """A random line of about unit variance that turns some ``hz`` times a second, shape ``[sample]``."""
    knots = rng.standard_normal(int(samples * hz / SAMPLE_RATE) + 3)
    line = np.interp(np.arange(samples) * (hz / SAMPLE_RATE), np.arange(len(knots)), knots)
    return np.asarray(line, np.float32)


def sine(cycles: Float64Array) -> Float32Array:
    """Sine of a phase in turns, ``[sample]``; whole turns go first, float32 has no digits for them."""
    sound: Float32Array = np.sin(((cycles - np.floor(cycles)) * (2.0 * np.pi)).astype(np.float32))
    return sound


def partials(cycles: Float64Array, highest_hz: float, amplitudes: tuple[float, ...]) -> Float32Array:
    """A harmonic tone, ``[sample]``: ``cycles`` is its phase in turns, ``highest_hz`` its fundamental at full speed."""
    tone = np.zeros(len(cycles), np.float32)
    for k, amplitude in enumerate(amplitudes, 1):
        if k * highest_hz < _HIGHEST_TONE_HZ:
            tone += np.float32(amplitude) * sine(k * cycles + 0.16 * k * k)  # spread phases: no pulse train
    return tone


def _body_in_room(rail: SlideRail) -> Float64Array:
    """From a force on the carriage to the microphone: the bare force, the body's modes, the room; unit energy."""
    body = 0.6 * ringing(rail.resonances_hz, rail.quality, 0.06)
    body[0] += 0.8
    time = np.arange(int(rail.room_seconds * SAMPLE_RATE)) / SAMPLE_RATE
    echoes = Generator(PCG64(SeedSequence((rail.number, 1)))).standard_normal(len(time))
    echoes *= 10.0 ** (-3.0 * time / rail.room_seconds) * (time > 0.004)
    room = 0.5 * _unit_energy(echoes)
    room[0] += 1.0
    return _unit_energy(np.convolve(body, room))


@dataclass(frozen=True)
class _Stroke:
    """How the carriage moves in one stroke and the dwell after it."""

    speed: Float64Array  # as a fraction of the machine's full speed, [sample]
    place: Float64Array  # on the rail, 0 to 1, [sample]
    stop: int  # sample at which the carriage stands


class SlideRailSound:
    """The sound of one machine, stroke after stroke, without end; with and without a fault the same strokes."""

    def __init__(self, rail: SlideRail, seed: SeedSequence) -> None:
        self.rail = rail
        self._motion, self._noise, self._fault = (Generator(PCG64(child)) for child in seed.spawn(3))
        self._slow_friction = Filter(colour((200, 1000, 2500, 8000), (-20, 0, -3, -20)))
        self._fast_friction = Filter(colour((300, 1500, 3000, 8000), (-24, -4, 0, 1.4 * rail.friction_tilt_db)))
        self._dry_friction = Filter(colour((800, 2500, 5000, 8000), (-24, -4, 0, -2)))
        self._body = Filter(_body_in_room(rail))
        self._forward = True
        # A recording is made on one day: warm or cold, a little faster or slower, a little heavier on the tones.
        self._pace = math.exp(0.01 * self._motion.standard_normal())
        self._tone_db = rail.tone_db + 0.8 * self._motion.standard_normal()

    def stroke(self, fault: Fault | None = None, severity: float = 0.0) -> Float32Array:
        """The next stroke and its dwell, ``[sample]``; in the long run of unit mean power, whatever the fault."""
        known = Fault(fault) if fault and severity > 0.0 else None  # a plain string that names no fault is an error
        return self._body(self._forces(known, severity) * np.float32(_gain(self.rail, known, severity)))

    def _forces(self, fault: Fault | None, severity: float) -> Float32Array:
        move = self._move()
        force = self._tones(move, severity if fault is Fault.LOOSE_BELT else 0.0)
        force += self._friction(move, severity if fault is Fault.NO_GREASE else 0.0)
        self._knock(force, move.stop, 5.0, self._motion)
        if fault is Fault.LOOSE_BELT:
            self._slap(force, move, severity)
        if fault is Fault.RAIL_DAMAGE:
            self._pass_damage(force, move, severity)
        return force

    def _move(self) -> _Stroke:
        """The next stroke: a trapezoid of speed with rounded corners, never twice quite the same."""
        rail, rng = self.rail, self._motion
        pace = self._pace * np.exp(0.012 * rng.standard_normal())
        nominal_seconds = rail.stroke_seconds * (1.0 if self._forward else rail.return_ratio)
        moving = int(nominal_seconds * pace * SAMPLE_RATE)
        standing = int(rail.dwell_seconds * np.exp(0.06 * rng.standard_normal()) * SAMPLE_RATE)
        time = (np.arange(moving) + 0.5) / moving
        ramp = np.minimum(1.0, np.minimum(time, 1.0 - time) / rail.ramp_fraction)
        profile = ramp * ramp * (3.0 - 2.0 * ramp)
        travelled = np.cumsum(profile) / np.sum(profile)
        place = travelled if self._forward else 1.0 - travelled
        self._forward = not self._forward
        speed = profile * (rail.stroke_seconds / (nominal_seconds * pace))
        return _Stroke(np.pad(speed, (0, standing)), np.pad(place, (0, standing), mode="edge"), moving)

    def _tones(self, move: _Stroke, loose: float) -> Float32Array:
        """Motor and belt, in step with the carriage; a loose belt slips in and out of step."""
        rail, samples = self.rail, len(move.speed)
        turns = np.cumsum(move.speed) * (rail.pole_hz / SAMPLE_RATE)
        motor = partials(turns, rail.pole_hz, (0.5, 0.5, 0.2, 0.5, 0.1, 0.35, 0.1, 0.2))
        belt_step = move.speed * (rail.belt_hz / SAMPLE_RATE)
        if loose:
            flutter = sine(np.linspace(0.0, 11.0 * samples / SAMPLE_RATE, samples) + self._fault.random())
            belt_step = belt_step * (1.0 + loose * (0.035 * wander(self._fault, samples, 6.0) + 0.03 * flutter))
        cycles = np.cumsum(belt_step)
        belt = partials(cycles, rail.belt_hz, (0.3, 0.6, 0.5, 0.7, 0.4, 0.5, 0.35, 0.4, 0.25, 0.3))
        belt *= np.float32(1.0) + np.float32(0.25) * sine(cycles / 20.0)  # a pulley of 20 teeth is never quite round
        if loose:
            belt *= np.exp(0.7 * loose * wander(self._fault, samples, 14.0)) * np.float32(1.0 + 0.6 * loose)
        load = np.sqrt(move.speed).astype(np.float32) * np.float32(10.0 ** (self._tone_db / 20.0))
        return (0.7 * motor + belt) * load

    def _friction(self, move: _Stroke, dry: float) -> Float32Array:
        """Noise that grows and brightens with speed; without grease it chatters and squeals."""
        samples, speed = len(move.speed), move.speed.astype(np.float32)
        slow, fast = (self._noise.standard_normal(samples, np.float32) for _ in range(2))
        # The rail's grain: the same places are a little rougher in every stroke.
        grain = 1.0 + 0.15 * np.sin(40.0 * move.place + 3.0 * np.sin(17.0 * move.place + self.rail.number))
        noise = (self._fast_friction(fast) * speed + self._slow_friction(slow) * np.float32(0.6)) * np.sqrt(speed)
        noise *= (grain * np.exp(0.12 * self._noise.standard_normal())).astype(np.float32)
        if not dry:
            return noise
        rng = self._fault
        # Stick-slip: force builds up and lets go, some 12 to 40 times a second, faster when the carriage is faster.
        rate_hz = (12.0 + 28.0 * move.speed) * np.exp(0.2 * wander(rng, samples, 8.0))
        slip = np.exp(-4.0 * (np.cumsum(rate_hz / SAMPLE_RATE) % 1.0))
        rough = self._dry_friction(rng.standard_normal(samples, np.float32)) * np.sqrt(speed)
        noise *= (1.0 - dry + dry * slip).astype(np.float32)
        noise += rough * (6.0 * dry * slip).astype(np.float32)
        mode_hz = rng.choice(self.rail.resonances_hz[2:])  # it finds another mode in every stroke
        squeal_hz = mode_hz * (0.93 + 0.06 * move.speed + 0.006 * wander(rng, samples, 5.0))
        gripping = np.clip(wander(rng, samples, 5.0) - 0.9 + 0.6 * dry, 0.0, 1.0) * np.sqrt(speed)
        noise += sine(np.cumsum(squeal_hz / SAMPLE_RATE)) * (4.5 * dry * gripping).astype(np.float32)
        return noise

    @staticmethod
    def _knock(force: Float32Array, at: int, strength: float, rng: Generator, seconds: float = 0.0015) -> None:
        """Add a knock: a push of about ``seconds`` with a rough edge, a decibel or two from the one before."""
        time = np.arange(int(8 * seconds * SAMPLE_RATE)) / (seconds * SAMPLE_RATE)
        push = strength * np.exp(0.15 * rng.standard_normal()) * time * np.exp(1.0 - time)
        push *= 0.4 + rng.standard_normal(len(time))
        force[at : at + len(push)] += push[: max(0, len(force) - at)].astype(np.float32)

    def _slap(self, force: Float32Array, move: _Stroke, loose: float) -> None:
        """Slack runs out when the carriage starts and when it brakes: the belt beats its guard and bounces."""
        for start, bounce in product((0.04 * move.stop, (1.0 - self.rail.ramp_fraction) * move.stop), range(4)):
            at = int(start + (0.045 * bounce + 0.004 * self._fault.random()) * SAMPLE_RATE)
            self._knock(force, at, 7.0 * loose * 0.7**bounce, self._fault, seconds=0.003)

    def _pass_damage(self, force: Float32Array, move: _Stroke, damaged: float) -> None:
        """Two bearings, one behind the other, knock at the damaged place and scrape for the length of a thumb."""
        for bearing in (-0.03, 0.03):
            at = int(np.argmin(np.abs(move.place - (self.rail.damage_place + bearing))))
            self._knock(force, at, 34.0 * damaged * float(move.speed[at]), self._fault, seconds=0.0008)
            self._knock(force, at, 5.0 * damaged, self._fault, seconds=0.015)


@lru_cache(maxsize=256)
def _gain(rail: SlideRail, fault: Fault | None, severity: float) -> float:
    """Gain that brings this machine with this fault to unit mean power, measured on 4 strokes of each of 8 days."""
    days = [SlideRailSound(rail, SeedSequence(day)) for day in range(8)]
    strokes = np.concatenate([day._body(day._forces(fault, severity)) for day in days for _ in range(4)])
    return float(1.0 / np.sqrt(np.mean(strokes.astype(np.float64) ** 2)))
