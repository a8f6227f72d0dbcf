import io
import json
import os
import sys
from pathlib import Path

import pytest

from roadmap.cli.parser import parse
from roadmap.common.errors import UserError
from roadmap.common.files import check_name, in_unicode, read_object, write_json
from roadmap.common.log import say
from roadmap.study.spec import StudySpec, plan_study

LATIN = os.fsdecode(b"caf\xe9")  # a file's name that is no UTF-8, as Python has it


def test_a_name_that_is_no_utf8_is_written_as_one_can_read_it(tmp_path: Path) -> None:
    write_json(tmp_path / "row.json", {"classes": [LATIN, "café"], LATIN: 1})
    assert read_object(tmp_path / "row.json") == {
        "classes": ["caf\N{REPLACEMENT CHARACTER}", "café"],
        in_unicode(LATIN): 1,
    }
    json.loads((tmp_path / "row.json").read_bytes().decode("utf-8"))["classes"][0].encode("utf-8")


@pytest.mark.parametrize("option", ["--runs", "--out", "--data"])
def test_a_path_that_is_no_utf8_is_refused_before_anything_runs(option: str) -> None:
    with pytest.raises(UserError, match=rf"^{option} /.*caf.: its name is not UTF-8\. Rename it, or make a link"):
        parse(["run", "--base", "resnet50", option, LATIN])


def test_nor_does_the_library_take_one() -> None:
    with pytest.raises(UserError, match=r"--runs .*its name is not UTF-8"):
        plan_study(StudySpec("resnet50", runs=Path(LATIN) / "runs"))


def test_other_words_have_to_be_utf8_too() -> None:
    with pytest.raises(UserError, match=r"--title: .* is not UTF-8"):
        parse(["report", "--base", "resnet50", "--title", LATIN])


def test_a_current_folder_counts_where_a_path_is_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / LATIN).mkdir()
    monkeypatch.chdir(tmp_path / LATIN)
    with pytest.raises(UserError, match="its name is not UTF-8"):
        check_name("runs", "--runs")
    check_name(tmp_path, "--runs")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_log_takes_any_name(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", log)
    say(f"{LATIN}: start")
    log.seek(0)
    assert log.read() == "caf\\udce9: start\n"
