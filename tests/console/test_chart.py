"""The chart says what the table says: every balance in its place, in steps, in words too."""

from itertools import pairwise

from ops.console.chart import HEIGHT, LEFT, QUANTITIES, WIDTH, Moved, chart_of


def moved(version: int, before: int, after: int, shipped: int = 0) -> Moved:
    still = dict.fromkeys(QUANTITIES, 0)
    return Moved(
        1_291_161_600_000_000 + version * 86_400_000_000,
        version,
        still | {"sellable": before},
        still | {"sellable": after, "shipped": shipped},
    )


def test_nothing_has_no_chart():
    assert chart_of([]) is None


def test_a_balance_goes_in_steps_from_before_the_first_movement_to_after_the_last():
    chart = chart_of([moved(7, 100, 60), moved(8, 60, 80)])
    assert chart is not None
    sellable = next(line for line in chart.lines if line.name == "sellable")
    points = [tuple(map(float, point.split(","))) for point in sellable.points.split()]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert (points[0][0], sellable.last, len(points)) == (LEFT, 80, 6)
    heights = [y for _, y in points]
    assert heights[0] == heights[1] < heights[4] == heights[5] < heights[2] == heights[3]
    assert chart.told == (
        "From version 7 to 8: sellable from 100 to 80, reserved from 0 to 0, allocated from 0 to 0, shipped from 0 to 0."
    )


def test_all_is_within_the_picture_and_its_scale_is_round():
    chart = chart_of([moved(1, 0, 1_234), moved(2, 1_234, -40, shipped=990), moved(3, -40, 5)])
    assert chart is not None
    points = [point.split(",") for line in chart.lines for point in line.points.split()]
    assert all(LEFT <= float(x) <= WIDTH and 0 <= float(y) <= HEIGHT for x, y in points)
    labels = [int(tick.label.replace(",", "")) for tick in chart.rows]
    assert labels[0] == -40
    assert labels[-1] >= 1_234
    assert {after - before for before, after in pairwise(labels)} == {500}
    assert [tick.label for tick in chart.columns] == ["12-02 00:00", "12-03 00:00", "12-04 00:00"]
