"""What goes through the pipe to a worker comes out as it went in."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from homeostat_retrainer.workshop import frames

texts = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=4)


@given(texts.filter(lambda header: "blob_bytes" not in header), st.lists(st.binary(max_size=50)))
def test_a_frame_is_read_as_it_was_written(header: dict[str, object], blobs: list[bytes]) -> None:
    frame = b"".join(frames.encode(header, blobs))
    prefix, body = frame[: frames.LENGTH_BYTES], frame[frames.LENGTH_BYTES :]
    assert frames.body_bytes(prefix) == len(body)
    assert frames.decode(body) == (header, blobs)


def test_a_table_keeps_its_nulls_and_types() -> None:
    table = pa.table({"x": pa.array([1.0, None], pa.float32()), "city": ["Bern", None]})
    assert frames.unpack_table(frames.pack_table(table)).equals(table)
