"""The parts of the report's page: escaped HTML and the ticks of its axes."""

from __future__ import annotations

import pytest
from markupsafe import Markup

from bandwidth_mfa_async.cli.report.page._html import join, tag
from bandwidth_mfa_async.cli.report.page._scales import count_ticks, latency_ticks


def test_html_is_escaped_exactly_once() -> None:
    """Strings are escaped; markup of this package is not escaped again."""
    assert tag("p", "<b>", tag("b", "&"), title='"<', class_=None) == '<p title="&#34;&lt;">&lt;b&gt;<b>&amp;</b></p>'
    assert join("<", None, Markup("<i>")) == "&lt;<i>"
    assert tag("rect", x=0.126, stroke_width=2) == '<rect x="0.13" stroke-width="2"></rect>'


@pytest.mark.parametrize("largest", [0, 1e-9, 0.3, 1, 7, 99, 100, 101, 12_345, 1e12])
def test_ticks_are_round_and_reach_the_largest_value(largest: float) -> None:
    """Two to six evenly spaced ticks from 0."""
    ticks = count_ticks(largest)
    assert ticks[0] == 0
    assert ticks[-1] >= largest * (1 - 1e-9)
    assert 2 <= len(ticks) <= 6
    assert all(float(f"{tick:.2g}") == pytest.approx(tick) for tick in ticks)


@pytest.mark.parametrize(("low", "high"), [(0.01, 0.1), (1e-6, 1e4), (0.05, 0.8), (1, 16)])
def test_latency_ticks_are_round_and_on_the_axis(low: float, high: float) -> None:
    """They are in ascending order."""
    ticks = latency_ticks(low, high)
    assert 2 <= len(ticks) <= 12
    places = [tick.at for tick in ticks]
    assert places == sorted(places)
    assert all(-0.1 <= place <= 100.1 for place in places)
