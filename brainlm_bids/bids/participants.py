"""Tables of people: a row per participant, or per participant and session.

Tables come in; columns of variables go out, a text per recording.
"""

from collections.abc import Sequence
from pathlib import Path

from brainlm_bids.bids.names import parse, without_prefix
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_rows

Columns = dict[str, list[str | None]]


def read_variables(bids_dir: Path, phenotype: Path | None, stems: Sequence[str]) -> Columns:
    """Columns of participants.tsv and of a phenotype file, a value per recording.

    A table with session_id is matched by session too. A column in both files is that of the
    phenotype file. Raises UserError for a file that is no such table.
    """
    columns: Columns = {}
    participants = bids_dir / "participants.tsv"
    for path in [participants] if participants.is_file() else []:
        columns |= _matched(path, stems)
    if phenotype is not None:
        columns |= _matched(phenotype, stems)
    return columns


def _matched(path: Path, stems: Sequence[str]) -> Columns:
    rows = read_rows(path)
    if not rows or "participant_id" not in rows[0]:
        raise UserError(f"{path}: has no column participant_id, or no rows")
    by_session = "session_id" in rows[0]
    table: dict[tuple[str, str | None], dict[str, str]] = {}
    for row in rows:
        key = _key(row["participant_id"], row["session_id"] if by_session else None)
        if key in table:
            raise UserError(
                f"{path}: two rows for {' '.join(part for part in key if part)}; one per "
                "participant (and session_id) is expected"
            )
        table[key] = row
    names = [name for name in rows[0] if name not in {"participant_id", "session_id"}]
    entities = [parse(stem).entities for stem in stems]
    found = [
        table.get(_key(one.get("sub", ""), one.get("ses") if by_session else None))
        for one in entities
    ]
    return {name: [None if row is None else row[name] for row in found] for name in names}


def _key(participant: str, session: str | None) -> tuple[str, str | None]:
    return without_prefix("sub", participant), session and without_prefix("ses", session)
