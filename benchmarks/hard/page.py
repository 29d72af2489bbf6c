"""The table of hard inputs: on the screen, and as a page of the documentation."""

from collections.abc import Mapping, Sequence

from benchmarks.hard.case import Result, Verdict

HEADER = ("input", "what a user is told", "r", "verdict")
INTRODUCTION = """# Difficult data

What the program does with data that are damaged, incomplete, oddly named or unlike what it expects.
Each row is an input that `python -m benchmarks.hard_inputs` writes and runs, on simulated data;
this page is its output. A run that cannot be processed has a line in the status table and never
stops the others.

The verdicts: **right**, the result is that of the same data without the difficulty; **warned**, the
run is done, and a warning in its sidecar, its report and the log tells what is wrong; **refused**,
the run is not processed, and the line says why. *r* is the correlation of the parcel series with
those of the same data without the difficulty, on the volumes that are good: the median over
parcels. It is missing where there is nothing to compare.

What is not found: a header in which left and right are exchanged, because no number tells; the T1w
image of somebody whose folds are nearly the same, such as two simulated heads; and
damage that looks like a good image.
"""


def table(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """The rows of one batch as text."""
    return [
        (
            result.case.about,
            _told(result),
            "" if result.r is None else f"{result.r:.3f}",
            result.verdict if not result.why else f"{result.verdict}: {result.why}",
        )
        for result in results
    ]


def _told(result: Result) -> str:
    if result.told:
        return " ".join(result.told.split())
    if result.fault:
        return ""
    return "nothing: it is planned as usual" if result.status == "planned" else "nothing"


def text(batches: Mapping[str, Sequence[Result]]) -> str:
    """The table for a screen."""
    lines = []
    for name, results in batches.items():
        lines.append(f"\n{name}")
        for result, (about, told, r, verdict) in zip(results, table(results), strict=True):
            lines.append(f"  {verdict:10s} {result.case.name:16s} {r:>6s}  {about}")
            if told and told != "nothing":
                lines.append(f"             {told[:220]}")
    wrong = [r for results in batches.values() for r in results if r.verdict is Verdict.WRONG]
    total = sum(len(results) for results in batches.values())
    lines.append(f"\n{total} inputs, {len(wrong)} of them WRONG")
    return "\n".join(lines)


def markdown(batches: Mapping[str, tuple[str, Sequence[Result]]]) -> str:
    """The page; batches: name -> what it is about, and its results."""
    parts = [INTRODUCTION]
    for name, (about, results) in batches.items():
        parts.append(f"## {name[:1].upper()}{name[1:]}\n\n{about}\n")
        parts.append(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
        parts[-1] += "".join(
            f"\n| {' | '.join(_cell(cell) for cell in row)} |" for row in table(results)
        )
        parts[-1] += "\n"
    return "\n".join(parts)


def _cell(value: str) -> str:
    """A cell of Markdown, in which what was read is text and folders of this machine are gone."""
    plain = value if len(value) <= 420 else f"{value[:420]} …"
    for letter, safe in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("*", "\\*"), ("_", "\\_")):
        plain = plain.replace(letter, safe)
    return plain
