"""The last hour: bounded, in order, and without a number that is not known."""

from fsdm.monitoring.page.history import EACH_S, HOUR_S, SAMPLES, History, Reading


def filled(count: int, each_s: float = EACH_S) -> History:
    history = History()
    for number in range(count):
        history.take(Reading(1e9 + number * each_s, 1000 * number, 5000 + number, 9000))
    return history


def test_rate_is_what_came_between_two_readings() -> None:
    history = History()
    history.take(Reading(100.0, 1000))
    history.take(Reading(110.0, 4000))
    history.take(Reading(115.0, 4000))
    assert [sample.bytes_per_s for sample in history.samples] == [None, 300.0, 0.0]


def test_there_is_an_hour_of_it_however_long_it_is_watched() -> None:
    for each_s in (EACH_S, 0.1, 60.0):
        history = filled(3 * SAMPLES, each_s)
        assert len(history.samples) <= SAMPLES
        assert history.samples[-1].at - history.samples[0].at <= HOUR_S
    assert len(filled(3 * SAMPLES).samples) == SAMPLES


def test_counter_that_begins_anew_and_clock_that_is_set_back_make_no_rate() -> None:
    history = History()
    history.take(Reading(100.0, 1000))
    history.take(Reading(110.0, 10))
    history.take(Reading(120.0, 110))
    assert [sample.bytes_per_s for sample in history.samples] == [None, None, 10.0]
    history.take(Reading(50.0, 210))
    assert [sample.at for sample in history.samples] == [50.0]
    assert history.samples[0].bytes_per_s is None


def test_document_scales_to_the_greatest_and_leaves_out_what_is_not_known() -> None:
    history = History()
    history.take(Reading(1e9, 0, None, 100))
    history.take(Reading(1e9 + 10, 10_000_000, 40, 50))
    document = history.document(1e9 + 10)
    assert document["x"] == [round(1 - 10 / HOUR_S, 5), 1]
    rate, here, free = document["plots"]
    assert (rate["y"], rate["says"], rate["top"]) == ([None, 1.0], ["", "1.0 MB/s"], "1.0 MB/s")
    assert (here["y"], here["top"]) == ([None, 1.0], "40 bytes")
    assert (free["y"], free["says"]) == ([1.0, 0.5], ["100 bytes", "50 bytes"])


def test_nothing_known_draws_nothing() -> None:
    history = History()
    history.take(Reading(1e9))
    assert [(plot["y"], plot["top"]) for plot in history.document(1e9)["plots"]] == [([None], "")] * 3
