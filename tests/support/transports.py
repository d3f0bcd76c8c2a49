"""Both transports, under the same tests; what one of them cannot do stands here, with its reason."""

import pytest

from fsdm.transfer.fetcher import HttpFetcher

NOT_BY_REQUESTS = {
    "test_path_is_sent_as_it_is": "requests normalizes paths (RFC 3986 §6.2.2)",
    "test_what_the_environment_said_is_not_believed_for_ever": "requests reads it anew for each request",
    "test_no_more_connections_are_kept_than_are_asked_for": "a session keeps those of up to ten servers",
    "test_handles_of_many_hosts_are_closed_without_the_collector": "requests has no handles",
    "test_connections_end_with_their_engine": "which of them are open, only libcurl's handles tell",
    "test_descriptors_are_not_inherited": "which of them are open, only libcurl's handles tell",
    "test_body_is_handed_on_in_blocks_and_a_drip_as_it_comes": "it is handed on as it comes",
    "test_stop_between_a_connection_and_its_use_ends_the_transfer": "requests shows no connection before its answer",
    "test_what_goes_on_for_ever_around_a_body_is_an_error": "http.client reads that itself, and only silence ends it",
}


@pytest.fixture(params=["libcurl", "requests"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The transport of every `HttpFetcher` and `an_engine` of a test that does not choose one."""
    name: str = request.param
    if name == "requests" and (reason := NOT_BY_REQUESTS.get(request.node.originalname)):
        pytest.skip(reason)
    monkeypatch.setitem(HttpFetcher.__init__.__kwdefaults__, "transport", name)
    return name
