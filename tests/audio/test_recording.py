"""Reading recordings: what is in them comes out, and what is wrong with them is one line."""

from __future__ import annotations

import faulthandler
import io
import os
import random
import re
import struct
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from edge_asd.audio.recording import find_recordings, probe, read_blocks, read_windows
from edge_asd.errors import RecordingError
from edge_asd.logmel import Float32Array, Float64Array

RATE = 16_000
STREAMED = 0xFFFFFFFF


def noise(*shape: int, seed: int = 0) -> Float64Array:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, shape)


def read(path: Path, sample_rate: int = RATE, channel: int = 1) -> Float32Array:
    return np.concatenate([*read_blocks(path, sample_rate=sample_rate, channel=channel)])


def complaint(path: Path, **options: int) -> str:
    """The one line about a bad recording, which must name it."""
    with pytest.raises(RecordingError) as caught:
        read(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert caught.value.__cause__ is None
    return message.removeprefix(f"{path}: ")


def chunk(name: bytes, body: bytes, length: int | None = None) -> bytes:
    return name + struct.pack("<I", len(body) if length is None else length) + body + b"\0" * (len(body) % 2)


def pcm_format(channels: int = 1, bits: int = 16, rate: int = RATE, encoding: int = 1) -> bytes:
    frame = channels * bits // 8
    return chunk(b"fmt ", struct.pack("<HHIIHH", encoding, channels, rate, rate * frame % 2**32, frame, bits))


def riff(*chunks: bytes) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def without_length(flac: bytes) -> bytes:
    """A FLAC stream as an encoder writes it into a pipe: the number of samples in its STREAMINFO is 0, unknown."""
    return flac[:21] + bytes([flac[21] & 0xF0, 0, 0, 0, 0]) + flac[26:]


SOUND = (noise(1600) * 32767).astype("<i2")


@pytest.mark.parametrize(
    ("container", "subtype", "step"),
    [
        ("WAV", "PCM_U8", 2**-7),
        ("WAV", "PCM_16", 2**-15),
        ("WAV", "PCM_24", 2**-23),
        ("WAV", "PCM_32", 2**-23),
        ("WAV", "FLOAT", 2**-24),
        ("WAV", "DOUBLE", 2**-24),
        ("WAVEX", "PCM_16", 2**-15),
        ("WAVEX", "PCM_24", 2**-23),
        ("WAVEX", "FLOAT", 2**-24),
        ("RF64", "PCM_16", 2**-15),
        ("FLAC", "PCM_S8", 2**-7),
        ("FLAC", "PCM_16", 2**-15),
        ("FLAC", "PCM_24", 2**-23),
    ],
)
def test_every_encoding_gives_its_samples(write_recording, container, subtype, step):
    sound = noise(40_000)
    path = write_recording(
        "sound.flac" if container == "FLAC" else "sound.wav", sound, format=container, subtype=subtype
    )
    samples = read(path)
    assert samples.dtype == np.float32
    assert np.abs(samples - sound).max() <= step


@pytest.mark.parametrize("suffix", ["wav", "flac"])
@pytest.mark.parametrize("channels", [1, 2, 5, 8])
def test_takes_the_channel_that_is_asked_for(write_recording, suffix, channels):
    sound = noise(2000, channels)
    path = write_recording(f"sound.{suffix}", sound)
    assert probe(path).channels == channels
    for channel in range(1, channels + 1):
        assert np.abs(read(path, channel=channel) - sound[:, channel - 1]).max() <= 2**-15


def test_channels_are_counted_from_one_and_must_be_there(write_recording):
    path = write_recording("two.wav", noise(2000, 2))
    assert complaint(path, channel=3) == "has 2 channel(s); there is no channel 3"
    assert "no channel 0" in complaint(path, channel=0)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_any_rate_is_resampled(write_recording, suffix, rate):
    seconds = 3.3
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(round(seconds * rate)) / rate)
    path = write_recording(f"sound.{suffix}", tone, rate, subtype="PCM_24")
    info = probe(path)
    assert (info.sample_rate, info.frames) == (rate, tone.size)
    assert info.seconds == pytest.approx(seconds, abs=1e-4)
    samples = read(path)
    assert abs(samples.size - seconds * RATE) <= 1
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(samples.size) / RATE)
    middle = slice(RATE // 10, -RATE // 10)
    assert np.abs(samples - expected)[middle].max() < 1e-3


def test_resampling_in_blocks_is_resampling_at_once(write_recording):
    sound = noise(3 * 44_100 + 17).astype(np.float32)
    path = write_recording("sound.wav", sound, 44_100, subtype="FLOAT")
    at_once = soxr.resample(sound, 44_100, RATE, quality="HQ")
    assert np.abs(read(path) - at_once).max() < 1e-6


def test_a_recording_of_the_wanted_rate_passes_unchanged(write_recording):
    sound = noise(50_000).astype(np.float32)
    assert np.array_equal(read(write_recording("sound.wav", sound, subtype="FLOAT")), sound)


@pytest.mark.parametrize("riff_length", [STREAMED, 0, 36])
def test_a_streamed_wav_that_does_not_know_its_length_is_read_to_its_end(tmp_path, riff_length):
    path = tmp_path / "streamed.wav"
    data = bytearray(riff(pcm_format(), chunk(b"LIST", b"INFO"), chunk(b"data", SOUND.tobytes(), STREAMED)))
    data[4:8] = struct.pack("<I", riff_length)
    path.write_bytes(data)
    assert np.array_equal(read(path), SOUND / np.float32(32768))


def test_a_flac_stream_that_does_not_state_its_length_is_read_to_its_end(write_recording):
    sound = noise(50_000)
    path = write_recording("streamed.flac", sound)
    path.write_bytes(without_length(path.read_bytes()))
    assert probe(path).frames is None
    assert probe(path).seconds is None
    assert np.abs(read(path) - sound).max() <= 2**-15


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk(b"JUNK", b"\0" * 28), pcm_format(), chunk(b"data", SOUND.tobytes())],
        [pcm_format(), chunk(b"LIST", b"odd"), chunk(b"data", SOUND.tobytes())],
        [pcm_format(), chunk(b"bext", b"\0" * 602), chunk(b"fact", b"\0" * 4), chunk(b"data", SOUND.tobytes())],
        [pcm_format(), chunk(b"data", SOUND.tobytes()), chunk(b"LIST", b"INFOISFT")],
        [pcm_format(), chunk(b"data", SOUND.tobytes()), b"tail that is no chunk at all"],
        [pcm_format(), chunk(b"wxyz", b"?" * 10), chunk(b"data", SOUND.tobytes())],
    ],
    ids=["junk first", "odd length", "broadcast", "list last", "garbage last", "unknown name"],
)
def test_chunks_of_other_kinds_are_passed_over(tmp_path, chunks):
    path = tmp_path / "chunks.wav"
    path.write_bytes(riff(*chunks))
    assert np.array_equal(read(path), SOUND / np.float32(32768))


def test_a_name_need_not_be_utf_8(write_recording):
    path = write_recording("sound.wav", noise(1600))
    odd = Path(os.fsdecode(os.fsencode(path.parent) + b"/h\xf6rbar.wav"))
    try:
        path.rename(odd)
    except OSError:
        pytest.skip("this file system wants UTF-8 names")
    assert read(odd).size == 1600


def test_folders_are_searched_in_order_of_names(write_recording, tmp_path):
    for name in ["b/2.wav", "b/10.WAV", "a/z.flac", "b/1/deep.wav", "c.wav"]:
        write_recording(name, noise(100), format="FLAC" if name.endswith("flac") else "WAV")
    (tmp_path / "b" / "notes.txt").write_text("not sound")
    folder, single = tmp_path / "b", tmp_path / "c.wav"
    found = find_recordings([single, folder, tmp_path / "a"])
    assert [str(p.relative_to(tmp_path)) for p in found] == ["c.wav", "b/1/deep.wav", "b/10.WAV", "b/2.wav", "a/z.flac"]


def test_a_missing_path_or_an_empty_folder_is_named(tmp_path):
    with pytest.raises(RecordingError, match=re.escape(f"{tmp_path}: holds no .wav or .flac file")):
        find_recordings([tmp_path])
    with pytest.raises(RecordingError, match=re.escape(f"{tmp_path / 'gone'}: does not exist")):
        find_recordings([tmp_path / "gone"])


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


@pytest.mark.parametrize(("suffix", "rate"), [("wav", 16_000), ("flac", 16_000), ("wav", 48_000)])
def test_a_long_recording_is_streamed(tmp_path, suffix, rate):
    path, minutes = tmp_path / f"long.{suffix}", 10
    second = noise(rate)
    with soundfile.SoundFile(path, "w", rate, 1, "PCM_16") as sound:
        for _ in range(minutes * 60):
            sound.write(second)
    windows = 0
    tracemalloc.start()
    try:
        for window in read_windows(path, sample_rate=RATE, window=10 * RATE, hop=10 * RATE):
            assert window.samples.size == 10 * RATE
            windows += 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert windows == 60
    assert peak < 6e6, "ten minutes are 38 MB as float32"


def test_windows_of_a_recording(write_recording):
    sound = noise(45 * RATE).astype(np.float32)
    path = write_recording("sound.wav", sound, subtype="FLOAT")
    lengths = []
    windows = list(read_windows(path, sample_rate=RATE, window=10 * RATE, hop=5 * RATE, on_length=lengths.append))
    assert [w.start for w in windows] == [n * 5 * RATE for n in range(8)]
    assert lengths == [45 * RATE]
    for window in windows:
        assert np.array_equal(window.samples, sound[window.start : window.start + 10 * RATE])
        assert window.lost == 0
        assert not window.is_repeated


def test_a_recording_shorter_than_a_window_is_repeated_to_fill_it(write_recording):
    sound = noise(7001).astype(np.float32)
    path = write_recording("short.wav", sound, subtype="FLOAT")
    (window,) = read_windows(path, sample_rate=RATE, window=10 * RATE, hop=RATE)
    assert window.is_repeated
    assert np.array_equal(window.samples, np.tile(sound, 30)[: 10 * RATE])


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


def test_real_recordings_are_ten_seconds_of_16_khz(recordings_folder):
    paths = find_recordings([recordings_folder])
    for path in paths[:: max(1, len(paths) // 40)]:
        info = probe(path)
        assert info.sample_rate == RATE
        assert read(path).size == info.frames
