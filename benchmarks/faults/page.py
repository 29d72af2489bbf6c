"""Results as a line, as a TSV, and as the table of the documentation."""

from collections.abc import Sequence

from benchmarks.faults.fault import Result

HEAD = ("| fault | what is done | at least | measured |", "|---|---|---|---|")
COLUMNS = ("fault", "tried", "held", "worst", "seconds")


def line(result: Result) -> str:
    """For the screen: the verdict, and the attempts in which what is asked for did not hold."""
    text = f"{'held' if result.good else 'FAILED'} {result.fault.name}: {result.measured}"
    return "\n    ".join([text, *(trial.told for trial in result.trials if not trial.held)])


def tsv(results: Sequence[Result]) -> str:
    """A row per fault."""
    rows = [COLUMNS] + [
        (
            result.fault.name,
            str(len(result.trials)),
            str(result.held),
            " ".join(result.worst.told.split()) or "n/a",
            f"{result.seconds:.2f}",
        )
        for result in results
    ]
    return "".join("\t".join(row) + "\n" for row in rows)


def markdown(results: Sequence[Result]) -> str:
    """The table of the documentation."""
    return "\n".join([*HEAD, *map(_row, results)]) + "\n"


def renewed(text: str, results: Sequence[Result], order: Sequence[str]) -> str:
    """A page whose rows of these faults are renewed; those of others stay."""
    before, _, rest = text.partition(HEAD[0] + "\n")
    lines = rest.splitlines()
    end = next((k for k, one in enumerate(lines) if not one.startswith("|")), len(lines))
    rows = {one.split("|")[1].strip(" `"): one for one in lines[1:end]}
    rows |= {result.fault.name: _row(result) for result in results}
    known = [rows[name] for name in order if name in rows]
    after = "\n".join(lines[end:])
    return before + "\n".join([*HEAD, *known, after]) + ("\n" if after else "")


def _row(result: Result) -> str:
    fault = result.fault
    measured = result.measured if result.good else f"**fails**: {result.measured}"
    cells = (f"`{fault.name}`", fault.about, fault.least, measured)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
