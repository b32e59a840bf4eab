"""The store by its URL."""

from pathlib import Path

import obstore
import pytest
from obstore.store import GCSStore, S3Store

from lift_server.store import open_store


def test_a_folder_is_made_and_keeps_no_empty_ones(tmp_path: Path) -> None:
    folder = tmp_path / "of" / "mine"
    store = open_store(folder.as_uri())
    obstore.put(store, "adapters/a/manifest.json", b"{}")
    obstore.put(store, "adapters/b/manifest.json", b"{}")
    obstore.delete(store, "adapters/a/manifest.json")
    assert [path.name for path in (folder / "adapters").iterdir()] == ["b"]


@pytest.mark.parametrize(("url", "kind"), [("s3://bucket/prefix", S3Store), ("gs://bucket/prefix", GCSStore)])
def test_a_bucket_is_opened(url: str, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert isinstance(open_store(url), kind)
