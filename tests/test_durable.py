"""Files that appear whole."""

import pytest

from mtl_rank.durable import appearing


def test_writers_of_one_file_do_not_spoil_each_other(tmp_path):
    path = tmp_path / "file"
    with appearing(path) as one:
        one.write_text("one, begun")
        with appearing(path) as other:
            other.write_text("other")
        assert path.read_text() == "other"
        with one.open("a") as file:
            file.write(" and ended")
    assert path.read_text() == "one, begun and ended"
    assert list(tmp_path.iterdir()) == [path]


def test_what_ends_in_an_error_does_not_appear(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), appearing(path) as partial:
        partial.write_text("half \udcff", encoding="utf-8")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
