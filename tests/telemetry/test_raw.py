from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from envctl.telemetry import raw


def write(path: Path, bodies: list[bytes]) -> None:
    writer = raw.RawWriter(path)
    for number, body in enumerate(bodies):
        writer.append(body, number)
    writer.close()


@given(st.lists(st.binary(max_size=50), max_size=8), st.integers(0, 700))
def test_whatever_is_cut_off_the_end_whole_records_stay_and_writing_goes_on(bodies, keep):
    with TemporaryDirectory() as directory:
        path = Path(directory, "traces.bin")
        write(path, bodies)
        whole = path.read_bytes()
        path.write_bytes(whole[:keep])
        left = [body for _, body in raw.read(path)]
        assert left == bodies[: len(left)]
        if keep >= len(whole):
            assert left == bodies
        write(path, [b"later"])
        assert [body for _, body in raw.read(path)] == [*left, b"later"]


def test_a_file_that_is_not_there_is_empty(tmp_path):
    assert list(raw.read(tmp_path / "none.bin")) == []


def test_only_what_came_after_a_position_is_copied(tmp_path):
    source, target = tmp_path / "env", tmp_path / "run"
    source.mkdir()
    write(raw.path_of(source, "traces"), [b"before"])
    since = raw.positions(source)
    write(raw.path_of(source, "traces"), [b"during", b"too"])
    write(raw.path_of(source, "logs"), [b"log"])
    with raw.path_of(source, "traces").open("ab") as file:
        file.write(b"\0\0")  # a record that is being written right now
    raw.copy_since(source, since, target)
    assert [body for _, body in raw.read(raw.path_of(target, "traces"))] == [b"during", b"too"]
    assert [body for _, body in raw.read(raw.path_of(target, "logs"))] == [b"log"]
    assert raw.path_of(target, "metrics").read_bytes() == b""
