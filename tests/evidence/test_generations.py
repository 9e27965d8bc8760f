"""Evidence grows old: what three releases wrote is one stream, verified as it was sealed."""

from pathlib import Path

import pytest

from ops.bench.evidence import bundle_of, sealed_logs
from ops.evidence.bundle import Question
from ops.evidence.verify import Bad, Trust, verify
from tests import generations
from tests.evidence.forgery import SEALER

ASKED = Question("sku", sku="85123A")
TRUST = Trust.of(SEALER.public, schemas=[generations.THIRD])


def bundle_in(folder: Path, values: list[bytes], *schemas: object) -> Path:
    (log,) = sealed_logs([("85123A", value) for value in values], folder, SEALER, 1, 2)
    bundle_of(ASKED, [log], folder / "bundle.zip", schemas)
    log.tree.close()
    return folder / "bundle.zip"


def test_a_stream_of_three_generations_is_verified_like_any_other(tmp_path: Path):
    path = bundle_in(tmp_path, generations.values(), generations.FIRST, generations.THIRD)

    (tree,) = verify(path, TRUST).trees

    assert (tree.records, tree.ends) == (3, {"stock/85123A/main": 3})


def test_an_old_event_that_was_rewritten_before_it_was_sealed_is_named(tmp_path: Path):
    first, *later = generations.values()
    forged = first.replace(b"behind the door", b"behind the wall")
    path = bundle_in(tmp_path, [forged, *later], generations.FIRST, generations.THIRD)

    with pytest.raises(Bad, match=r"stock/85123A/main@2 .* does not chain"):
        verify(path, TRUST)


def test_a_generation_whose_schema_is_not_in_the_bundle_is_named(tmp_path: Path):
    path = bundle_in(tmp_path, generations.values(), generations.FIRST)

    with pytest.raises(Bad, match="leaf 2: no stock event by a schema of the bundle"):
        verify(path, TRUST)
