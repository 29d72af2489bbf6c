"""Records are the same after they were stored and read."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from brainlm_bids.interfaces import payloads
from brainlm_bids.parcels.operator import Coverage
from brainlm_bids.parcels.steps import Scaled
from brainlm_bids.preproc import steps
from brainlm_bids.preproc.registration.transforms import ItkTransform

RNG = np.random.default_rng(0)
COURSES, FLAGS = RNG.normal(size=(5, 2)), np.array([True, False])
RECORDS = [
    steps.Motion(n_dummy=0),
    steps.Motion(3, RNG.normal(size=(5, 6)), RNG.normal(size=(5, 4, 4)), np.zeros(3), 0.25),
    steps.Components(COURSES, COURSES.T.astype(np.float32), COURSES[0], False, 7, 3),
    steps.Decisions(*[COURSES[0]] * 5, FLAGS, np.array(["", "HFC 0.400 > 0.35"])),
    steps.Design(COURSES, np.array(["csf", "trans_x"]), np.array([True] * 5)),
    steps.AromaSamples(np.zeros((2, 3), np.float32), FLAGS, FLAGS, ~FLAGS),
    Coverage(np.arange(2), np.arange(2), COURSES[0]),
    Scaled(COURSES, FLAGS, COURSES[0], COURSES[1], 0.735),
    ItkTransform.from_matrix(np.diag([2.0, 1.0, 1.0, 1.0])),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_records_come_back_as_they_were(record: Any, tmp_path: Path) -> None:
    found = payloads.load(type(record), payloads.save(record, tmp_path / "record"))
    for field in fields(record):
        before, after = getattr(record, field.name), getattr(found, field.name)
        assert type(before) is type(after)
        np.testing.assert_array_equal(before, after)
        if isinstance(before, np.ndarray):
            assert before.dtype == after.dtype


def test_arrays_tables_and_operators_come_back_as_they_were(tmp_path: Path) -> None:
    path = payloads.save(COURSES, tmp_path / "courses")
    np.testing.assert_array_equal(payloads.load(np.ndarray, path), COURSES)
    path = payloads.save({"csf": COURSES[:, 0], "trans_x": COURSES[:, 1]}, tmp_path / "table")
    table = payloads.load(dict, path)
    assert list(table) == ["csf", "trans_x"]
    np.testing.assert_array_equal(table["trans_x"], COURSES[:, 1])
    operator = sparse.csr_matrix(np.eye(3, dtype=np.float32))
    path = payloads.save(operator, tmp_path / "operator")
    assert (payloads.load(sparse.csr_matrix, path) != operator).nnz == 0


def test_what_is_no_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="int is not a record"):
        payloads.save(3, tmp_path / "three")


def test_the_way_to_a_run_is_that_of_its_parts(tmp_path: Path) -> None:
    points, matrix = np.ones((1, 3)), np.diag([3.0, 1.0, 1.0, 1.0])
    transform = payloads.save(ItkTransform.from_matrix(np.diag([2.0, 1, 1, 1])), tmp_path / "t")
    rigid = payloads.save(matrix, tmp_path / "m")
    assert payloads.load_pull(None, None)(points).tolist() == [[1.0, 1.0, 1.0]]
    assert payloads.load_pull(None, rigid)(points).tolist() == [[3.0, 1.0, 1.0]]
    np.testing.assert_allclose(payloads.load_pull(transform, rigid)(points), [[6.0, 1.0, 1.0]])
