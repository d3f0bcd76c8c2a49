"""What verbs print."""

from fsdm.cli.output import estimate


def test_an_estimate_says_where_its_rate_is_assumed() -> None:
    assert estimate(10**10, None) == "at least 3 min, at 50.0 MB a second, which is assumed"
    assert estimate(10**10, 1e7) == "at least 17 min, at 10.0 MB a second"
    assert estimate(0, 1e7) == "at least 0 s, at 10.0 MB a second"
