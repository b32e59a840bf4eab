import os
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from lift_config.settings import BUNDLED_MODEL, Settings

REGISTERED = {"registered": True, "api_key": "shared"}


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting from outside."""
    for name in os.environ:
        if name.startswith("LIFT_") or name == "REDIS_URL":
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The operator's file, empty so far."""
    path = tmp_path / "lift.yaml"
    path.write_text("")
    monkeypatch.setenv("LIFT_CONFIG", str(path))
    return path


def test_the_defaults_are_whole() -> None:
    settings = Settings()
    assert settings.base_model == BUNDLED_MODEL == settings.model_name
    assert settings.recipe == "balanced"
    assert settings.engine_urls == ("http://127.0.0.1:8100",)
    assert settings.redis_url == ""


def test_a_file_that_is_not_there_is_refused(file: Path) -> None:
    file.unlink()
    with pytest.raises(ValidationError, match=r"LIFT_CONFIG names .*, which is no file"):
        Settings()


def test_secrets_are_read_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIFT_ADAPTER_SECRETS", '["sixteen letters!", "of the old times"]')
    settings = Settings()
    assert [secret.get_secret_value() for secret in settings.adapter_secrets] == [
        "sixteen letters!",
        "of the old times",
    ]
    assert "letters" not in repr(settings)


def test_a_short_secret_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIFT_ADAPTER_SECRETS", '["hush"]')
    with pytest.raises(ValidationError, match="adapter_secrets") as refused:
        Settings()
    assert "hush" not in str(refused.value)


def test_an_empty_file_changes_nothing(file: Path) -> None:
    assert file.read_text() == ""
    assert Settings().recipe == "balanced"


def test_the_file_is_read_and_the_environment_wins(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("recipe: fast\nengine:\n  port: 9000\n  max_loras: 2\nredis_url: redis://file\n")
    monkeypatch.setenv("LIFT_ENGINE__PORT", "9100")
    settings = Settings()
    assert (settings.recipe, settings.engine.port, settings.engine.max_loras) == ("fast", 9100, 2)
    assert settings.redis_url == "redis://file"


@pytest.mark.parametrize("name", ["REDIS_URL", "LIFT_REDIS_URL"])
def test_both_names_of_the_redis_url_beat_the_file(file: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    file.write_text("redis_url: redis://file\n")
    monkeypatch.setenv(name, "redis://environment")
    assert Settings().redis_url == "redis://environment"


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "")
    monkeypatch.setenv("LIFT_ENGINES", "")
    assert (Settings().redis_url, Settings().engines) == ("", 1)


@pytest.mark.parametrize("text", ["recpie: fast\n", "engine:\n  prot: 1\n", "worker:\n  lease: 3\n"])
def test_an_unknown_key_in_the_file_is_refused_by_name(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(ValidationError, match=text.split(":")[-2].split()[-1]):
        Settings()


def test_a_misspelled_variable_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIFT_RECPIE", "fast")
    with pytest.raises(ValidationError, match="LIFT_RECPIE"):
        Settings()


def test_an_unknown_variable_of_a_section_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIFT_ENGINE__PROT", "1")
    with pytest.raises(ValidationError, match="prot"):
        Settings()


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("recipe: paper\nengine: {max_lora_rank: 16}\n", "engine.max_lora_rank"),  # its rank is 128
        ("recipe: quickest\n", "unknown recipe 'quickest'"),
        ("engine: {max_loras: 8, max_cpu_loras: 4}\n", "engine.max_cpu_loras"),
        ("engine: {gpu_memory_fraction: 0.8}\n", "engine.gpu_memory_fraction"),
        ("engine: {max_lora_rank: 24}\n", "max_lora_rank"),
        ("server: {port: 0}\n", "port"),
        ("worker: {lease_s: 0.5}\n", "lease_s"),
        ("device: tpu\n", "device"),
    ],
)
def test_values_that_cannot_be_are_refused_by_name(file: Path, text: str, field: str) -> None:
    file.write_text(text)
    with pytest.raises(ValidationError, match=field):
        Settings()


@pytest.mark.parametrize(
    ("recipe", "stated", "rank"), [("balanced", 0, 16), ("paper", 0, 128), ("paper", 128, 128), ("fast", 64, 64)]
)
def test_the_engine_is_as_wide_as_the_recipe_needs(recipe: str, stated: int, rank: int) -> None:
    settings = Settings(recipe=recipe, engine={"max_lora_rank": stated})
    assert settings.max_lora_rank == rank


@pytest.mark.parametrize("limits", [{"max_loras": 8}, {"max_cpu_loras": 8}, {"max_loras": 8, "max_cpu_loras": 8}])
def test_how_many_adapters_an_engine_holds_may_be_left_to_it(limits: dict[str, int]) -> None:
    assert Settings(engine=limits).engine.max_cpu_loras == limits.get("max_cpu_loras", 0)


@pytest.mark.parametrize(
    ("base_model", "name"),
    [
        ("org/model", "org/model"),
        ("model", "model"),
        ("/models/llama-8b", "llama-8b"),
        ("./models/x", "x"),
        ("~/x", "x"),
        ("a/b/c", "c"),
    ],
)
def test_the_served_name_is_never_a_path(base_model: str, name: str) -> None:
    assert Settings(base_model=base_model).model_name == name
    assert Settings(base_model=base_model, served_name="own").model_name == "own"


def test_engines_count_up_from_the_first_port_or_run_elsewhere() -> None:
    assert Settings(engines=2).engine_urls == ("http://127.0.0.1:8100", "http://127.0.0.1:8101")
    assert Settings(engine={"urls": ["http://a:1/", "http://b:2"]}).engine_urls == ("http://a:1", "http://b:2")


def test_the_store_is_a_folder_below_home_unless_it_is_named(tmp_path: Path) -> None:
    assert Settings(home=tmp_path).resolved_store_url == f"file://{tmp_path}/store"
    assert Settings(home=tmp_path, store_url="s3://bucket/p").resolved_store_url == "s3://bucket/p"


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().engine.port = 1  # type: ignore[misc]


def test_an_engines_address_as_others_reach_it() -> None:
    def address(index: int, **engine: object) -> str:
        return Settings(engine=REGISTERED | engine).engine_address(index)

    assert address(0) == "http://127.0.0.1:8100"
    assert address(1, host="::1", port=9000) == "http://[::1]:9001"
    assert address(1, address="https://gpu-5.internal:8443") == "https://gpu-5.internal:8444"
    assert address(0, address="http://[fd00::5]", host="::") == "http://[fd00::5]:8100"


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        ({"api_key": ""}, "engine.api_key: engine.registered needs one"),
        ({"urls": ["http://10.0.0.5:8100"]}, "engine.urls: not together with engine.registered"),
        ({"host": "0.0.0.0"}, "engine.address: others cannot reach 0.0.0.0"),
        ({"address": "http://gpu-5/engine"}, "engine.address: 'http://gpu-5/engine' is not like http://host:port"),
        ({"address": "http://gpu-5:65536"}, "engine.address: 1 engines from port 65536 on are too many"),
        ({"address": "gpu-5:8100"}, "engine.address: 'gpu-5:8100' is not like http://host:port"),
    ],
)
def test_a_registration_that_nobody_could_use_is_refused(engine: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(reason)):
        Settings(engine=REGISTERED | engine)


def test_registered_engines_have_no_address_in_the_settings() -> None:
    assert Settings(engine=REGISTERED).engine_urls == ()


@pytest.mark.parametrize("role", ["engines", "workers"])
def test_a_cluster_has_no_more_at_least_than_at_most(role: str) -> None:
    with pytest.raises(ValidationError, match=f"cluster.{role}_max: must be at least cluster.{role}_min"):
        Settings(cluster={f"{role}_min": 3, f"{role}_max": 2})
