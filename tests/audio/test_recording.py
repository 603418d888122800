"""Reading recordings: what is in them comes out."""

from __future__ import annotations

import os
import re
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from parts.recordings import RATE, SOUND, STREAMED, chunk, complaint, noise, pcm_format, read, riff, without_length

from edge_asd.audio.recording import find_recordings, probe, read_windows
from edge_asd.errors import RecordingError


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


def test_real_recordings_are_ten_seconds_of_16_khz(recordings_folder):
    paths = find_recordings([recordings_folder])
    for path in paths[:: max(1, len(paths) // 40)]:
        info = probe(path)
        assert info.sample_rate == RATE
        assert read(path).size == info.frames
