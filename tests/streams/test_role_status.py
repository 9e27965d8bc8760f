"""A role's status: one whole file at any moment, not written more often than anybody reads it."""

import json

from streams.role_status import RoleStatus


def test_it_says_who_and_how(tmp_path):
    RoleStatus("sagas", tmp_path).write("degraded", "no Kafka", lag_events=3)
    said = json.loads((tmp_path / "sagas.json").read_text())
    assert {
        "role": "sagas",
        "health": "degraded",
        "detail": "no Kafka",
        "lag_events": 3,
    }.items() <= said.items()
    assert [file.name for file in tmp_path.iterdir()] == ["sagas.json"]


def test_the_same_again_at_once_is_not_written_but_another_health_is(tmp_path):
    status, file = RoleStatus("sagas", tmp_path), tmp_path / "sagas.json"
    status.write(lag_events=1)
    first = file.read_bytes()
    status.write(lag_events=2)
    assert file.read_bytes() == first
    status.write("failing", lag_events=2)
    assert json.loads(file.read_bytes())["health"] == "failing"


def test_without_a_directory_nothing_is_written(monkeypatch, tmp_path):
    monkeypatch.delenv("DAYBOOK_RUN", raising=False)
    monkeypatch.chdir(tmp_path)
    RoleStatus("sagas").write()
    assert list(tmp_path.iterdir()) == []
