"""The picture of a placement: how full each worker is, how often each range is held, and what moves."""
