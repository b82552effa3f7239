import struct
from pathlib import Path

import numpy as np
import pytest
from video_files import frames, write_seq

from plasm.data.seq import SeqStream
from plasm.data.sources import find_sources, open_source


@pytest.mark.parametrize("gap", [8, 16])
def test_any_frame(tmp_path: Path, gap: int) -> None:
    file = write_seq(tmp_path / "V000.seq", frames(9), gap)
    assert find_sources(tmp_path) == [file]
    (stream,) = open_source(file, 3)
    assert isinstance(stream, SeqStream)
    assert (stream.num_frames, stream.size, stream.channels, stream.rate) == (9, (24, 32), 3, 30)
    read = stream.read(2, 3, 3)
    assert (read.mean((1, 2, 3)) / 8).round().tolist() == [2, 5, 8]
    assert stream.read(0, 1, gray=True).shape == (1, 24, 32, 1)


def test_errors_say_what_is_wrong(tmp_path: Path) -> None:
    file = write_seq(tmp_path / "V000.seq", frames(5))
    content = file.read_bytes()
    file.write_bytes(content[:-100])
    with pytest.raises(ValueError, match=r"V000\.seq ends after 4 of 5 frames"):
        SeqStream(file)
    file.write_bytes(b"RIFF" + content[4:])
    with pytest.raises(ValueError, match=r"not a \.seq file"):
        SeqStream(file)
    file.write_bytes(content[:568] + struct.pack("<I", 100) + content[572:])
    with pytest.raises(ValueError, match="format 100"):
        SeqStream(file)
    write_seq(file, [])
    with pytest.raises(ValueError, match="no frames"):
        SeqStream(file)
    write_seq(file, [*frames(3), *frames(1, 48), *frames(1)])
    with pytest.raises(ValueError, match=r"frame 4 of .*V000\.seq is 32x48, frame 1 32x24"):
        SeqStream(file).read(0, 5)
    np.testing.assert_equal(SeqStream(file).read(0, 3).shape, (3, 24, 32, 3))
