"""Files and folders are replaced whole, on disk before they are visible, or not at all."""

import os
from pathlib import Path

import pytest

from cbd.files import publish, replacing, write_bytes, write_text


def test_content_is_replaced_as_it_is_and_folders_are_made(tmp_path):
    path = tmp_path / "new" / "table.csv"
    assert write_text(path, "one\n") == path and write_text(path, "zw\u00f6lf\r\n") == path
    assert path.read_bytes() == "zw\u00f6lf\r\n".encode()
    write_bytes(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert list(path.parent.iterdir()) == [path], "nothing is left beside it"


def test_until_the_block_ends_the_old_content_is_there_and_a_failure_keeps_it(tmp_path):
    path = write_text(tmp_path / "figure.png", "old")
    with pytest.raises(ValueError, match="broke"), replacing(path) as fresh:
        assert fresh.suffix == ".png" and fresh.parent == path.parent
        fresh.write_text("half")
        assert path.read_text() == "old"
        raise ValueError("broke")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_takes_the_place_of_another_whole(tmp_path):
    for name in ("first", "second"):
        with replacing(tmp_path / "model") as fresh:
            (fresh / "inner").mkdir(parents=True)
            (fresh / "inner" / name).write_text(name)
    assert [path.name for path in (tmp_path / "model" / "inner").iterdir()] == ["second"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    with pytest.raises(KeyError), replacing(tmp_path / "other") as fresh:
        fresh.mkdir()
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_every_file_is_on_disk_before_its_folder_has_its_name(tmp_path, monkeypatch):
    fresh, final, synced = tmp_path / "fresh", tmp_path / "final", set()
    (fresh / "inner").mkdir(parents=True)
    for name in ("a", "inner/b"):
        (fresh / name).write_text("text")

    def fsync(descriptor):
        assert not final.exists()
        synced.add(Path(os.readlink(f"/proc/self/fd/{descriptor}")).relative_to(fresh).as_posix())

    monkeypatch.setattr(os, "fsync", fsync)
    publish(fresh, final)
    assert synced == {"a", "inner/b"} and (final / "inner" / "b").read_text() == "text"
