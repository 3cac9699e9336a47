"""The data is the same in every process, so that numbers and answers can be compared."""

import pandas as pd
import pytest

from rollway_training.samples import SAMPLES, held_out_rows


@pytest.fixture(params=sorted(SAMPLES))
def sample(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_the_split_is_the_same_every_time(sample: str) -> None:
    first, second = SAMPLES[sample].load(), SAMPLES[sample].load()
    pd.testing.assert_frame_equal(first.held_out_rows, second.held_out_rows)
    assert first.digest == second.digest


def test_no_held_out_row_is_trained_on(sample: str) -> None:
    data = SAMPLES[sample].load()
    assert not set(data.train_rows.index) & set(data.held_out_rows.index)
    assert len(data.held_out_rows) == len(data.held_out_target) > 100


def test_columns_are_doubles_with_plain_names(sample: str) -> None:
    rows = held_out_rows(sample)
    assert set(map(str, rows.dtypes)) == {"float64"}
    assert all(name.isidentifier() for name in rows.columns)


def test_each_sample_has_a_digest_of_its_own() -> None:
    digests = {sample.load().digest for sample in SAMPLES.values()}
    assert len(digests) == len(SAMPLES)
    assert all(digest.startswith("sha256:") for digest in digests)
