"""The tables and charts that the benchmarks make of their figures."""

from __future__ import annotations

import copy
import pathlib
import re
import shutil
import sys
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks import _background_load, _charts, _numbers
from benchmarks.__main__ import BEGIN, END, PAGE, PARTS, README, RESULTS, Part, draw, quoted, saved, section, shown
from benchmarks.__main__ import run as run_parts
from tests.support import processes

ROOT = pathlib.Path(__file__).parents[2]


def saved_results() -> dict[str, dict[str, Any]]:
    results = saved()
    assert set(results) == set(PARTS)
    return results


def made(file: pathlib.Path) -> str:
    """Return the generated part of a file."""
    _, begin, rest = file.read_text().partition(BEGIN)
    shown, end, _ = rest.partition(END)
    assert begin
    assert end
    return shown


def test_the_page_shows_the_saved_figures() -> None:
    """Its section is the one generated from the saved figures."""
    shown = made(PAGE)
    assert shown == section(saved_results())
    for row in _numbers.rows(saved_results()):
        assert f"| {row.metric} | {row.ours} |" in shown


def test_readme_quotes_five_of_the_saved_figures() -> None:
    """Each has the figure and the baseline of a row of the page's table."""
    assert made(README) == quoted(saved_results())
    lines = made(README).splitlines()[2:]
    assert len(lines) == 5
    for line in lines:
        _, figures = line.removesuffix(" |").split(" | ", 1)
        assert f"| {figures} |" in made(PAGE)


def test_the_charts_show_the_saved_figures() -> None:
    """Each chart is what `draw` generates, there is no other file, and the page shows each."""
    drawn = _charts.draw(saved_results())
    assert {file.name for file in RESULTS.glob("*.svg")} == set(drawn)
    page = PAGE.read_text()
    for name, picture in drawn.items():
        assert (RESULTS / name).read_text() == picture
        ET.fromstring(picture)
        assert f'"results/{name}"' in page


def test_the_saved_figures_state_their_origin() -> None:
    """They include the machine, the date and the command, and the command is the current one."""
    for name, result in saved_results().items():
        assert result["command"] == " ".join(PARTS[name].command)
        assert {"date", "cpu", "cores", "python", "system", "versions"} <= set(result["machine"])
        assert "aiohttp" in result["machine"]["versions"]


def test_texts_fit_into_their_chart() -> None:
    """Each text fits into the picture, even in a wide font."""
    for picture in _charts.draw(saved_results()).values():
        for text in ET.fromstring(picture).iter("{http://www.w3.org/2000/svg}text"):
            letter = 0.60 if "font-weight" in text.attrib else 0.56  # DejaVu Sans has 0.56 and 0.50
            wide = letter * float(text.attrib["font-size"]) * len(text.text or "")
            x = float(text.attrib["x"])
            left, right = (x - wide, x) if text.attrib.get("text-anchor") == "end" else (x, x + wide)
            assert left >= 0, text.text
            assert right <= _charts.WIDTH, text.text


def test_a_missed_target_is_reported_as_missed() -> None:
    """A figure on the wrong side of its target is never rounded to the right side."""
    calls = copy.deepcopy(saved_results()["calls"])
    for cost in calls["figures"]["calls"]:
        cost["ours_to_it"] = 1.004 if cost["name"] == "aiohttp, naive" else 0.2004
    rows = [row for row in _numbers.rows({"calls": calls}) if "growth" not in row.metric]
    assert {(row.ratio, row.target, row.verdict) for row in rows} == {
        ("1.004", "<= 1.00", "NOT MET"),
        ("0.200", "<= 0.20", "NOT MET"),
    }
    assert "**not met**" in _numbers.as_markdown(rows)


def test_a_run_prints_one_table() -> None:
    """The table shows each requested part with its target and whether it is met."""
    command = [sys.executable, "-m", "benchmarks", "--only", "truth"]
    run = processes.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=True)
    head, row, *footnotes = run.stdout.splitlines()
    assert head.split()[0] == "metric"
    assert re.search(r" 0 of [\d,]+ ", row)
    assert row.endswith(" met")
    assert not row.endswith("NOT MET")
    assert len(footnotes) == (_background_load.MARK in row)  # on a busy machine


def test_a_part_is_ended_when_the_time_is_up(capfd: pytest.CaptureFixture[str]) -> None:
    """It is missing from the results and reported on stderr."""
    assert run_parts(["truth"], max_seconds=0.2) == {}
    assert "truth: ended, the time is up" in capfd.readouterr().err


def test_a_part_whose_package_cannot_be_installed_is_skipped(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The run continues with the other parts."""
    monkeypatch.setitem(
        PARTS, "truth", Part(("oracle", "--sends", "200", "--json"), folder="tests.system", package="./no/such/package")
    )
    assert run_parts(["truth"]) == {}
    assert "truth: ended with 1" in capfd.readouterr().err


def test_a_cut_line_states_its_maximum() -> None:
    """A line beyond the scale has its maximum beside it; other lines have no note."""
    results = copy.deepcopy(saved_results())
    course = results["rates"]["figures"]["figures"][0]["course"]
    for way, counts in course.items():
        for kind in ("accepted", "refused"):
            counts[kind] = [min(count, 150) for count in counts[kind]]
        if way == "naive":
            counts["refused"][3] = 1234
    assert re.findall("cut: up to [0-9,]+", _charts.rates(results, _charts.LIGHT)) == ["cut: up to 1,234"]


@pytest.mark.skipif(not _background_load.STAT.exists(), reason="no /proc/stat")
def test_the_background_load_excludes_a_parts_own_processes() -> None:
    """A running child counts as background load; once it has ended, it counts as the part's own."""
    spinning = "import sys, time\nwhile time.process_time() < 0.9: pass\nprint(flush=True)\nsys.stdin.read()"
    command = [sys.executable, "-c", spinning]
    load = _background_load.BackgroundLoad()
    with processes.running(command, stdin=processes.PIPE, stdout=processes.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        during = load.share()
    after = load.share()
    assert during is not None
    assert after is not None
    assert after < during


def test_figures_of_a_busy_machine_are_marked() -> None:
    """Each row and chart of such a part is marked; other parts, and results without a load, are not."""
    results = {name: {**result, "others": None} for name, result in saved_results().items()}
    plain = section(results)
    assert _background_load.MARK.strip() not in plain
    assert shown(results) == _numbers.as_text(_numbers.rows(results))
    results["memory"]["others"], results["first"]["others"] = 0.234, _background_load.MAX_SHARE
    marked = section(results)
    rows = [line for line in marked.splitlines() if line.startswith("|") and _background_load.MARK in line]
    assert len(rows) == len(_numbers.memory(results["memory"]["figures"]))
    assert "other processes used more than 10 % of the machine's time: memory 23 %." in marked
    assert shown(results).endswith(": memory 23 %")
    note = "Other processes used 23 % of the machine."
    assert {name for name, picture in _charts.draw(results).items() if note in picture} == {
        "memory-light.svg",
        "memory-dark.svg",
    }


def test_draw_keeps_the_rest_of_both_pages(tmp_path: pathlib.Path) -> None:
    """Only the text between the marks is replaced."""
    shutil.copytree(RESULTS, tmp_path / "results")
    page, readme = tmp_path / "page.md", tmp_path / "README.md"
    for file in (page, readme):
        file.write_text(f"before\n{BEGIN}old\n{END}after\n")
    draw(tmp_path / "results", page, readme)
    for file, first in ((page, "<picture>"), (readme, "| metric |")):
        text = file.read_text()
        assert text.startswith(f"before\n{BEGIN}{first}")
        assert text.endswith(f"{END}after\n")
        assert "old" not in text.split()
