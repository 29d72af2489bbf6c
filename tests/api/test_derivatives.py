"""`load_derivatives`: a folder of outputs as tables, and one that an older version has written."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from simulated_cohort import write_cohort

from brainlm_bids import files, load_derivatives
from brainlm_bids.bids.outputs import Naming, output_table
from brainlm_bids.bids.recordings import find_recordings

MODELS = ("brainlmdemo", "randomtiny")


def _write_model(naming: Naming, model: str, value: float) -> None:
    embedding = {f"cls_{k:04d}": [value + k] for k in range(4)}
    once = {"onset": [0.0], "duration": [147.0], "n_windows": [2], **embedding}
    files.write_tsv(
        naming.path("recording_embedding", model=model), list(once), list(once.values())
    )
    windows = {"onset": [0.0, 147.0], "duration": [147.0] * 2}
    windows |= {name: [column[0], column[0]] for name, column in embedding.items()}
    files.write_tsv(naming.path("embeddings", model=model), list(windows), list(windows.values()))
    metrics = {"mask_ratio": [0.75] * 2, "predictor": ["model", "ridge"], "r2": [value, 0.5]}
    files.write_tsv(naming.path("metrics", model=model), list(metrics), list(metrics.values()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three subjects, two models, of which one has seen series scaled both ways."""
    raw, out = write_cohort(tmp_path, 3)
    for number, one in enumerate(find_recordings(out)):
        naming = one.naming
        for model in MODELS:
            _write_model(naming, model, float(number))
        cohort = Naming(naming.output_dir, naming.stem, naming.space, naming.atlas, "cohort")
        _write_model(cohort, MODELS[0], 10.0 + number)
    description = {"DatasetLinks": {"raw": raw.as_uri()}}
    files.write_json(out / "dataset_description.json", description)
    return out


def _rename_to_former(out: Path) -> int:
    """Give the files the names that version 0.0 gave them; how many there are."""
    renamed = {}
    for key in ("recording_embedding", "embeddings", "metrics", "pearson"):
        row = output_table()[key]
        for path in list(out.glob(f"sub-*/func/*_{row.suffix}{row.extension}")):
            head, _, rest = path.name.partition(f"_{'model' if key != 'pearson' else 'stat'}-")
            entities = dict(p.split("-") for p in f"model-{rest}".split("_")[:-1])
            if key == "pearson":
                label = "pearson"
            elif entities.get("desc") == row.desc:
                scaling = entities.get("scaling", "")
                kind = "recording" if key == "recording_embedding" else ""
                label = f"{entities['model']}{scaling}{kind}"
            else:
                continue
            former = path.with_name(f"{head}_desc-{label}_{row.suffix}{row.extension}")
            path.rename(former)
            renamed[path.name] = former.name
    for record in (out / "logs" / "records").glob("*_series.json"):
        text = record.read_text()
        for name, former_name in renamed.items():
            text = text.replace(name, former_name)
        record.write_text(text)
    return len(renamed)


def test_tables_of_a_folder(folder: Path) -> None:
    tables = load_derivatives(folder)
    assert len(tables.recordings) == 3
    assert {"participant_id", "session_id", "age"} <= set(tables.recordings)
    assert len(tables.embeddings) == 9
    assert len(tables.windows) == len(tables.metrics) == 18
    counts = tables.embeddings.groupby(["model", "scaling"]).size().to_dict()
    assert counts == {
        ("brainlmdemo", "cohort"): 3,
        ("brainlmdemo", "recording"): 3,
        ("randomtiny", "recording"): 3,
    }
    features = tables.features("brainlmdemo", "cohort")
    assert features["cls_0000"].tolist() == [10, 11, 12]
    assert list(features) == [f"cls_{k:04d}" for k in range(4)]
    assert tables.features("randomtiny")["cls_0001"].tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match=r"embeddings of model .*; name one"):
        tables.features()
    with pytest.raises(ValueError, match=r"embeddings of scaling .*; name one"):
        tables.features("brainlmdemo")
    with pytest.raises(ValueError, match="no embeddings of model 'brainlm111M'"):
        tables.features("brainlm111M")


def test_an_older_folder_has_the_same_tables(folder: Path) -> None:
    present = load_derivatives(folder)
    assert _rename_to_former(folder) == 3 * (3 * 3 + 1)
    former = load_derivatives(folder)
    for name in ("recordings", "embeddings", "windows", "metrics"):
        by = list(getattr(present, name).columns)
        one, other = (
            getattr(tables, name).sort_values(by, ignore_index=True) for tables in (present, former)
        )
        pd.testing.assert_frame_equal(one, other)
    assert np.isfinite(former.features("randomtiny").to_numpy()).all()


def test_codes_for_missing_values_are_not_numbers_of_a_column() -> None:
    from brainlm_bids.api.derivatives import _known_ids, _typed

    with pytest.warns(UserWarning, match="age: -9999"):
        ages = _typed("age", ["30", "n/a", "-9999", "41,5", "52", None])
    np.testing.assert_array_equal(ages, [30, np.nan, np.nan, 41.5, 52, np.nan])
    assert _typed("drug", ["none", "NA", "x"]).tolist() == ["none", None, "x"]
    known = pd.Series(["sub-01", "sub-02"])
    assert _known_ids(pd.Series([1, 2, 7]), known) == ["01", "02", "7"]
