"""Names and texts use the field's standard terms: neither the former names nor a private dialect come back."""

from __future__ import annotations

import io
import pathlib
import re
import tokenize

ROOT = pathlib.Path(__file__).parents[2]
CODE = sorted(
    path
    for folder in ("bandwidth_mfa_async", "tests", "benchmarks")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".lua", ".js", ".css", ".html"}
)
TEXTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / ".github").rglob("*.md"))]

# Former names, each with a clearer one now. Ordinary words that were names too (take, found, cut) are not listed.
FORMER_NAMES = frozenset(
    re.findall(
        r"\w+",
        """
        AcceptedWindow Attempts Caller CodeBook Core Done FOREVER Feed Flaw Found GateClosedEvent HeldError Learnt
        Line MOST Noise Pacer Ramp Record Repeats Slots Stretch Surroundings Then Unreported WAIT _HOPELESS
        _LAST_WORDS _ROUND _Seen _WORTH_TELLING _alone _at_work _bad _believe _believed _bulk_check _disturb _doubtful
        _early _fed _finding _found _gave _gone _heard _hold _keep_large_buffers _keep_watch _let_all_go _let_go _lost
        _marked _obeying _offer _on_disk _owed _patience _plain _reach _recovered _refusal _report_words
        _see_that_it_is_whole _tail _tell_attempt _tell_end _tell_start _telling _thens _trial _waits again_after
        attempt_too concerns_all cut_short explains give_up hide_host_only in_hand keep_refusals left_over lenient
        look_through meaning_of move_to one_way own_keys own_word paced repeats run_for seed_keys strange tell_how
        too_late under_way wait_in_words was_cut was_served worth_repeating write_whole
        """,
    )
)
FORMER_PREFIX = re.compile(r"_?(MOST|LONGEST|LEAST|FEWEST|SHORTEST)_")
DIALECT = re.compile(
    r"\b(nobody|whoever|became of|tell|tells|told|telling|under way|mend|mends|mended|mending|at length|let go"
    r"|lets go|letting go|by hand of|in words)\b",
    re.IGNORECASE,
)


def test_names_are_the_glossarys() -> None:
    """No former name is an identifier, and limits are called MAX or MIN."""
    found: dict[str, set[str]] = {}
    for path in CODE:
        if path.suffix == ".py":
            tokens = tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline)
            names = {token.string for token in tokens if token.type == tokenize.NAME}
            if former := {name for name in names if name in FORMER_NAMES or FORMER_PREFIX.match(name)}:
                found[str(path.relative_to(ROOT))] = former
    assert not found


def test_texts_are_plain() -> None:
    """Docstrings, comments, messages, names of tests and documents avoid the phrases of the former dialect."""
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in [*CODE, *TEXTS]
        if path != pathlib.Path(__file__)
        for number, line in enumerate(path.read_text("utf-8").replace("_", " ").splitlines(), 1)
        if DIALECT.search(line)
    ]
    assert not found, "\n".join(found)
