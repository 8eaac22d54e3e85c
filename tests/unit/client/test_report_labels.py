"""Names beside points: none covers another, none stands outside, the first ones come first."""

from hypothesis import given, settings
from hypothesis import strategies as st

from rootserve.client.report.labels import Area, leader, place

FRAME = Area(50, 20, 350, 300)
places = st.tuples(st.floats(50, 350), st.floats(20, 300))
widths = st.floats(10, 90)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(places, widths), max_size=12))
def test_no_name_covers_another_or_a_mark(points: list[tuple[tuple[float, float], float]]) -> None:
    spots = [spot for spot, _ in points]
    areas = place(spots, [(width, 14.0) for _, width in points], FRAME)
    placed = [area for area in areas if area is not None]
    for n, area in enumerate(placed):
        assert FRAME.holds(area)
        assert not any(area.overlaps(other) for other in placed[n + 1 :])
        assert not any(area.overlaps(Area(x, y, x, y).grown(1)) for x, y in spots)
    if points:
        assert areas[0] is not None or len(points) > 1


def test_a_name_stands_beside_its_point_and_off_a_line() -> None:
    (alone,) = place([(200, 150)], [(40, 14)], FRAME)
    assert alone is not None
    assert leader((200, 150), alone) is None
    line = ((150.0, 150.0), (250.0, 150.0))
    (off,) = place([(200, 150)], [(40, 14)], FRAME, [line])
    assert off is not None
    assert off.bottom < 150 or off.top > 150


def test_one_that_stands_far_has_a_line_to_it() -> None:
    begin, end = leader((100, 100), Area(140, 95, 180, 109)) or ((0, 0), (0, 0))
    assert end == (140, 100)
    assert 100 < begin[0] < 140


def test_where_there_is_no_room_the_first_ones_are_written() -> None:
    narrow = Area(0, 0, 60, 30)
    first, second = place([(10, 15), (12, 15)], [(40, 14), (40, 14)], narrow)
    assert first is not None
    assert second is None
