"""Where an object is asked for, by its URL and what its source says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdm.model.errors import TransferError
from fsdm.transfer.http.route import Access
from fsdm.transfer.http.target import Target
from fsdm.transfer.schemes.stores import STORES

MINIO = Access(endpoint="http://minio:9000")
ACCOUNT = Access(endpoint="https://a.blob.core.windows.net", sas="sv=1&sig=x%3D")


@pytest.mark.parametrize(
    ("url", "access", "region", "found"),
    [
        ("s3://lake/a/b", Access(), "eu-west-1", "https://lake.s3.eu-west-1.amazonaws.com/a/b"),
        ("S3://lake/a", Access(), "cn-north-1", "https://lake.s3.cn-north-1.amazonaws.com.cn/a"),
        ("s3://a.lake/k", Access(), "eu-west-1", "https://s3.eu-west-1.amazonaws.com/a.lake/k"),
        ("s3://My_lake/k", Access(), "eu-west-1", "https://s3.eu-west-1.amazonaws.com/My_lake/k"),
        ("s3://lake/k", Access(path_style=True), "eu-west-1", "https://s3.eu-west-1.amazonaws.com/lake/k"),
        ("s3://lake/k", MINIO, "us-east-1", "http://minio:9000/lake/k"),
        ("s3://lake/k", Access(endpoint="https://r2.example", path_style=False), "x", "https://lake.r2.example/k"),
        ("s3://lake/a b%20c+d?e#f/é~'", MINIO, "x", "http://minio:9000/lake/a%20b%2520c%2Bd%3Fe%23f/%C3%A9~%27"),
        ("s3://lake//a//b/", MINIO, "x", "http://minio:9000/lake//a//b/"),
        ("s3://lake/k?versionId=a.b-C_1", MINIO, "x", "http://minio:9000/lake/k?versionId=a.b-C_1"),
        ("s3://lake/k?versionId=", MINIO, "x", "http://minio:9000/lake/k%3FversionId%3D"),
        ("s3://lake/k?versionId=a&b", MINIO, "x", "http://minio:9000/lake/k%3FversionId%3Da%26b"),
        ("gs://lake/a b?generation=17", Access(), "auto", "https://storage.googleapis.com/lake/a%20b?generation=17"),
        ("az://box/a/b", ACCOUNT, "", "https://a.blob.core.windows.net/box/a/b?sv=1&sig=x%3D"),
        ("az://$web/a", Access(endpoint="https://h/acc"), "", "https://h/acc/$web/a"),
        ("az://box/a?versionid=2024-01-01T00:00:00.1Z", ACCOUNT, "",
         "https://a.blob.core.windows.net/box/a?versionid=2024-01-01T00%3A00%3A00.1Z&sv=1&sig=x%3D"),
    ],
)  # fmt: skip
def test_object_is_asked_for_at_its_endpoint(url: str, access: Access, region: str, found: str) -> None:
    assert STORES[url.partition(":")[0].lower()].find(url, access, region) == found
    Target.of(found)


@pytest.mark.parametrize(
    "url", ["s3://", "s3://lake", "s3://lake/", "s3:///a", "s3://me@lake/a", "s3://a:80/b", "s3://a\\b/c", "s3://-a/b"]
)
def test_url_that_names_no_object_is_refused(url: str) -> None:
    with pytest.raises(TransferError, match="names no object"):
        STORES["s3"].find(url, MINIO, "x")


@pytest.mark.parametrize("key", ["..", ".", "a/../b", "../a", "a/.", "./a"])
def test_key_that_climbs_is_refused(key: str) -> None:
    with pytest.raises(TransferError, match=r"a key with \. or \.\."):
        STORES["s3"].find(f"s3://lake/{key}", MINIO, "x")


def test_store_without_an_endpoint_is_refused() -> None:
    with pytest.raises(TransferError, match="no endpoint") as caught:
        STORES["az"].find("az://box/a", Access(), "")
    assert caught.value.cause == "settings"


@given(st.text(max_size=20), st.text(max_size=20), st.sampled_from([None, True, False]))
def test_no_bucket_and_no_key_leads_to_another_host(bucket: str, key: str, path_style: bool | None) -> None:
    access = Access(endpoint="https://store.example", path_style=path_style)
    try:
        target = Target.of(STORES["s3"].find(f"s3://{bucket}/{key}", access, "x"))
    except (TransferError, UnicodeEncodeError, ValueError):
        return
    assert target.host == "store.example" or target.host.endswith(".store.example")
