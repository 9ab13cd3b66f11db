"""The tables and charts that are made of the kept figures, and the marks of a busy machine."""

from __future__ import annotations

import copy
import re
import shutil
import sys
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks import _charts, _numbers, _others
from benchmarks.__main__ import BEGIN, END, PARTS, RESULTS, ROOT, Part, draw, saved, section, shown
from benchmarks.__main__ import run as everything
from tests.support import processes

if TYPE_CHECKING:
    import pathlib


def kept() -> dict[str, dict[str, Any]]:
    results = saved()
    assert set(results) == set(PARTS)
    return results


def test_readme_shows_the_kept_figures() -> None:
    """README's numbers are those of the last kept run, to the letter."""
    _, begin, rest = (ROOT / "README.md").read_text().partition(BEGIN)
    shown, end, _ = rest.partition(END)
    assert begin
    assert end
    assert shown == section(kept())
    for row in _numbers.rows(kept()):
        assert f"| {row.what} | {row.ours} |" in shown


def test_the_charts_are_those_of_the_kept_figures() -> None:
    """Each is what `--draw` makes of the figures, none is left over, and README shows each."""
    drawn = _charts.draw(kept())
    assert {file.name for file in RESULTS.glob("*.svg")} == set(drawn)
    readme = (ROOT / "README.md").read_text()
    for name, picture in drawn.items():
        assert (RESULTS / name).read_text() == picture
        ET.fromstring(picture)
        assert f'"benchmarks/results/{name}"' in readme


def test_the_kept_figures_say_where_they_come_from() -> None:
    """The machine, the day and the command stand beside them, and the command is still the one that is run."""
    for name, result in kept().items():
        assert result["command"] == " ".join(PARTS[name].command)
        assert {"date", "cpu", "cores", "python", "system", "versions"} <= set(result["machine"])
        assert "aiohttp" in result["machine"]["versions"]


def test_no_word_in_a_chart_leaves_it() -> None:
    """Each text fits into the picture, with a wide font's letters."""
    for picture in _charts.draw(kept()).values():
        for text in ET.fromstring(picture).iter("{http://www.w3.org/2000/svg}text"):
            letter = 0.60 if "font-weight" in text.attrib else 0.56  # DejaVu Sans has 0.56 and 0.50
            wide = letter * float(text.attrib["font-size"]) * len(text.text or "")
            x = float(text.attrib["x"])
            left, right = (x - wide, x) if text.attrib.get("text-anchor") == "end" else (x, x + wide)
            assert left >= 0, text.text
            assert right <= _charts.WIDTH, text.text


def test_a_missed_target_is_called_so() -> None:
    """A figure on the wrong side of its target is never rounded to the right one."""
    calls = copy.deepcopy(kept()["calls"])
    for cost in calls["figures"]["calls"]:
        cost["ours_to_it"] = 1.004 if cost["name"] == "aiohttp, naive" else 0.2004
    rows = [row for row in _numbers.rows({"calls": calls}) if "growth" not in row.what]
    assert {(row.ratio, row.target, row.verdict) for row in rows} == {
        ("1.004", "<= 1.00", "NOT MET"),
        ("0.200", "<= 0.20", "NOT MET"),
    }
    assert "**not met**" in _numbers.as_markdown(rows)


def test_everything_prints_one_table() -> None:
    """A part that is asked for is measured, and stands in the table with its target and whether it is met."""
    command = [sys.executable, "-m", "benchmarks", "--only", "truth"]
    run = processes.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=True)
    head, row, *marked = run.stdout.splitlines()
    assert head.split()[0] == "what"
    assert re.search(r" 0 of [\d,]+ ", row)
    assert row.endswith(" met")
    assert not row.endswith("NOT MET")
    assert len(marked) == (_others.MARK in row)  # on a busy machine


def test_a_part_is_ended_when_time_is_up(capfd: pytest.CaptureFixture[str]) -> None:
    """Then it is missing, and said to be."""
    assert everything(["truth"], budget=0.2) == {}
    assert "truth: ended, the time was up" in capfd.readouterr().err


def test_a_part_whose_package_is_not_to_be_had_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The others are measured all the same."""
    monkeypatch.setitem(
        PARTS, "truth", Part(("oracle", "--sends", "200", "--json"), folder="tests.system", package="./no/such/package")
    )
    assert everything(["truth"]) == {}
    assert "truth: ended with 1" in capfd.readouterr().err


def test_a_line_that_leaves_its_chart_says_how_far() -> None:
    """Where more was sent than the scale reaches, the number stands beside it; where not, nothing does."""
    results = copy.deepcopy(kept())
    course = results["rates"]["figures"]["figures"][0]["course"]
    for way, counts in course.items():
        for kind in ("accepted", "refused"):
            counts[kind] = [min(count, 150) for count in counts[kind]]
        if way == "naive":
            counts["refused"][3] = 1234
    assert re.findall("cut: up to [0-9,]+", _charts.rates(results, _charts.LIGHT)) == ["cut: up to 1,234"]


@pytest.mark.skipif(not _others.STAT.exists(), reason="no /proc/stat")
def test_what_others_take_is_told_from_what_a_part_takes() -> None:
    """A child of another process is somebody else, until it has ended and is counted as a part's own."""
    spinning = "import sys, time\nwhile time.process_time() < 0.9: pass\nprint(flush=True)\nsys.stdin.read()"
    command = [sys.executable, "-c", spinning]
    others = _others.Others()
    with processes.running(command, stdin=processes.PIPE, stdout=processes.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        during = others.share()
    after = others.share()
    assert during is not None
    assert after is not None
    assert after < during


def test_figures_of_a_busy_machine_are_marked() -> None:
    """Each row and each chart of such a part says so; those of others, and of results that do not know, do not."""
    results = {name: {**result, "others": None} for name, result in kept().items()}
    plain = section(results)
    assert _others.MARK.strip() not in plain
    assert shown(results) == _numbers.as_text(_numbers.rows(results))
    results["memory"]["others"], results["first"]["others"] = 0.234, _others.BUSY
    marked = section(results)
    rows = [line for line in marked.splitlines() if line.startswith("|") and _others.MARK in line]
    assert len(rows) == len(_numbers.memory(results["memory"]["figures"]))
    assert "others took more than 10 % of the machine's time: memory 23 %." in marked
    assert shown(results).endswith(": memory 23 %")
    note = "Others took 23 % of the machine meanwhile."
    assert {name for name, picture in _charts.draw(results).items() if note in picture} == {
        "memory-light.svg",
        "memory-dark.svg",
    }


def test_draw_leaves_the_rest_of_readme(tmp_path: pathlib.Path) -> None:
    """Only what stands between the marks is replaced."""
    shutil.copytree(RESULTS, tmp_path / "results")
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}old\n{END}after\n")
    draw(tmp_path / "results", readme)
    text = readme.read_text()
    assert text.startswith(f"before\n{BEGIN}<picture>")
    assert text.endswith(f"{END}after\n")
    assert "old" not in text.split()
