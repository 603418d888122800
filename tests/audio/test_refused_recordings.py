"""Recordings that are malformed, damaged or none: refused with one line, never played and never a hang."""

from __future__ import annotations

import faulthandler
import io
import os
import random
import re
import struct
import time

import numpy as np
import pytest
import soundfile
from parts.recordings import RATE, SOUND, STREAMED, chunk, complaint, noise, pcm_format, read, riff, without_length

from edge_asd.audio.recording import read_blocks
from edge_asd.errors import RecordingError

BAD_WAVS = {
    "no samples": (riff(pcm_format(), chunk(b"data", b"")), "holds no samples"),
    "streamed, no samples": (riff(pcm_format(), chunk(b"data", b"", STREAMED)), "holds no samples"),
    "data cut": (riff(pcm_format(), chunk(b"data", SOUND.tobytes()))[:-400], "truncated: its header promises 0.10 s"),
    "no data": (riff(pcm_format()), "truncated"),
    "header cut": (riff(pcm_format(), chunk(b"data", SOUND.tobytes()))[:30], "format chunk is too short"),
    "only a magic": (b"RIFF\0\0\0\0WAVE", "truncated"),
    "chunk beyond the end": (riff(pcm_format(), chunk(b"LIST", b"INFO", 5000)), "truncated within its 'LIST' chunk"),
    "data before format": (riff(chunk(b"data", SOUND.tobytes()), pcm_format()), "samples come before their format"),
    "format too short": (riff(chunk(b"fmt ", b"\1\0"), chunk(b"data", SOUND.tobytes())), "format chunk is too short"),
    "ADPCM": (riff(pcm_format(encoding=2, bits=4), chunk(b"data", SOUND.tobytes())), "encoding 0x0002 with 4 bits"),
    "no channel": (riff(pcm_format(channels=0), chunk(b"data", SOUND.tobytes())), "claims 0 channels"),
    "too many channels": (riff(pcm_format(channels=999), chunk(b"data", SOUND.tobytes())), "claims 999 channels"),
    "rate 0": (riff(pcm_format(rate=0), chunk(b"data", SOUND.tobytes())), ""),
    "rate too high": (riff(pcm_format(rate=10**6), chunk(b"data", SOUND.tobytes())), "claims 1000000 Hz"),
    "rate absurd": (riff(pcm_format(rate=2**31), chunk(b"data", SOUND.tobytes())), "cannot be decoded"),
    "name of a chunk": (riff(pcm_format(), chunk(b"\xff\0\n\x07", b""), chunk(b"data", SOUND.tobytes())), ""),
    "frame does not fit": (
        riff(chunk(b"fmt ", struct.pack("<HHIIHH", 1, 2, RATE, RATE, 1, 16)), chunk(b"data", SOUND.tobytes())),
        "block size does not fit",
    ),
    "endless chunks": (riff(pcm_format(), *[chunk(b"JUNK", b"")] * 2000), "no samples within its first 1000 chunks"),
}


@pytest.mark.parametrize(("data", "reason"), BAD_WAVS.values(), ids=BAD_WAVS)
def test_a_malformed_wav_is_refused(tmp_path, data, reason):
    path = tmp_path / "bad.wav"
    path.write_bytes(data)
    assert reason in complaint(path)


NO_AUDIO = {
    "text": b"this is a text, whatever its name says, and a long one",
    "zeros": b"\0" * 4096,
    "one byte": b"R",
    "RIFF of another kind": b"RIFF\x10\0\0\0AVI LIST",
    "big-endian": b"RIFX\x10\0\0\0WAVEfmt ",
    "Ogg": b"OggS\0\2" + b"\0" * 60,
    "MP3": b"ID3\4\0\0\0\0\0\0",
}


@pytest.mark.parametrize("name", ["sound.wav", "sound.flac"])
@pytest.mark.parametrize("data", NO_AUDIO.values(), ids=NO_AUDIO)
def test_what_is_not_audio_is_refused(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    assert complaint(path) == "is not a WAV or FLAC recording"


def test_what_cannot_be_opened_is_refused(tmp_path):
    assert complaint(tmp_path / "gone.wav") == "No such file or directory"
    (tmp_path / "empty.wav").touch()
    assert complaint(tmp_path / "empty.wav") == "is empty"
    (tmp_path / "folder.wav").mkdir()
    assert complaint(tmp_path / "folder.wav") == "Is a directory"
    assert "null" in complaint(tmp_path / "nul\0.wav")


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    path = tmp_path / "pipe.wav"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # lets a reader that opens the pipe fail rather than hang
    os.write(writer, b"not sound at all")
    assert complaint(path) == "is not a file"
    os.close(writer)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("states_length", [True, False])
def test_a_truncated_flac_is_refused(write_recording, kept, states_length):
    path = write_recording("cut.flac", noise(5 * RATE))
    data = path.read_bytes() if states_length else without_length(path.read_bytes())
    path.write_bytes(data[: int(len(data) * kept)])
    assert re.search("cannot be decoded|is truncated", complaint(path))


def test_a_flac_cut_between_its_frames_is_refused(write_recording):
    path = write_recording("cut.flac", noise(5 * RATE))
    data = path.read_bytes()
    frames = [match.start() for match in re.finditer(rb"\xff\xf8", data)]
    path.write_bytes(data[: frames[len(frames) // 2]])
    assert re.search("cannot be decoded|is truncated", complaint(path))


def test_a_flac_of_its_header_alone_is_refused(write_recording):
    path = write_recording("cut.flac", noise(RATE))
    for size in [4, 20, 42]:
        path.write_bytes(path.read_bytes()[:size])
        assert complaint(path)


def test_a_damaged_flac_is_refused_not_played(write_recording):
    path = write_recording("damaged.flac", noise(5 * RATE))
    data = bytearray(path.read_bytes())
    for place in range(1000, len(data), len(data) // 10):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        assert "is truncated or damaged" in complaint(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("rate", "second"), [(16_000, 0.25), (44_100, 2.5)])
def test_nan_and_infinity_are_refused_with_their_place(write_recording, value, rate, second):
    sound = noise(3 * rate)
    sound[int(second * rate)] = value
    path = write_recording("nan.wav", sound, rate, subtype="FLOAT")
    assert complaint(path) == f"holds NaN or infinity at {second:.3f} s"


def test_nan_in_another_channel_does_not_matter(write_recording):
    sound = noise(2000, 2)
    sound[7, 0] = np.nan
    path = write_recording("nan.wav", sound, subtype="FLOAT")
    assert np.isfinite(read(path, channel=2)).all()


def test_values_that_overflow_in_resampling_are_refused(write_recording):
    sound = np.tile(np.float32([3.4e38, -3.4e38, -3.4e38, 3.4e38]), 5000)
    assert "too large for sound" in complaint(write_recording("huge.wav", sound, 44_100, subtype="FLOAT"))


def test_too_short_for_one_sample_at_the_wanted_rate_is_refused(write_recording):
    assert complaint(write_recording("short.wav", [0.1], 96_000)) == "is too short: 1 sample(s) at 96000 Hz"


def test_blocks_before_the_damage_are_given(write_recording):
    sound = noise(5 * RATE)
    sound[4 * RATE] = np.nan
    blocks = read_blocks(write_recording("late.wav", sound, subtype="FLOAT"), sample_rate=RATE)
    given = []
    with pytest.raises(RecordingError):
        for block in blocks:
            given.append(block)
    assert np.array_equal(np.concatenate(given), sound[: 4 * RATE].astype(np.float32))


def small_recordings() -> list[tuple[str, bytes]]:
    kinds = [("WAV", "PCM_16"), ("WAV", "PCM_U8"), ("WAV", "FLOAT"), ("WAVEX", "PCM_24"), ("RF64", "PCM_16")]
    kinds += [("FLAC", "PCM_16"), ("FLAC", "PCM_24")] * 2
    recordings = []
    for channels, (container, subtype) in enumerate(kinds):
        file = io.BytesIO()
        soundfile.write(file, noise(1200, channels % 3 + 1), 8000, format=container, subtype=subtype)
        recordings.append(("flac" if container == "FLAC" else "wav", file.getvalue()))
    return recordings


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, cut, put in or repeated, most of them in the header."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 3, 8])):
        place = rng.randrange(min(len(changed), 100) if rng.random() < 0.7 else len(changed))
        kind = rng.randrange(7)
        if kind == 0:
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[place : place + 4] = struct.pack("<I", rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFE, STREAMED]))
        elif kind == 2:
            changed[place:place] = rng.randbytes(rng.randrange(1, 40))
        elif kind == 3:
            del changed[place : place + rng.randrange(1, 40)]
        elif kind == 4:
            changed[place:place] = changed[: rng.randrange(1, 200)]
        elif kind == 5:
            names = [b"fmt ", b"data", b"LIST", b"PEAK", b"cue ", b"smpl", b"bext", b"ds64", b"acid", b"id3 "]
            body = rng.randbytes(rng.choice([0, 1, 4, 16, 40]))
            changed[12:12] = chunk(rng.choice(names), body, rng.choice([len(body), 3, STREAMED]))
        else:
            changed = changed[: rng.randrange(len(changed))]
        if len(changed) < 2:
            break
    return bytes(changed)


def test_mutated_recordings_are_read_or_refused_and_never_hang(tmp_path):
    rng, originals, refused = random.Random(7), small_recordings(), 0
    for number in range(300):
        suffix, original = rng.choice(originals)
        path = tmp_path / f"{number}.{suffix}"
        path.write_bytes(mutated(original, rng))
        faulthandler.dump_traceback_later(30, exit=True)  # a hang in libsndfile cannot be interrupted
        begin = time.monotonic()
        try:
            assert np.isfinite(read(path)).all()
        except RecordingError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ")
            assert "\n" not in str(error)
        finally:
            faulthandler.cancel_dump_traceback_later()
        assert time.monotonic() - begin < 2
    assert 100 < refused < 290, "the mutations are either too mild or too wild to say anything"
