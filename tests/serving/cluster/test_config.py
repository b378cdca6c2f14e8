"""The declaration of an application on Ray Serve."""

import re
from typing import Any

import pytest
from intaglio.serving.cluster.config import Autoscaling, ClusterConfig
from intaglio.serving.settings import Settings
from pydantic import ValidationError


def config(**values: Any) -> ClusterConfig:
    return ClusterConfig.model_validate({"artifacts": {"m": "/models/m"}, **values})


def test_a_declaration_in_yaml_has_the_settings_of_the_server() -> None:
    found = config(
        settings={"slots": 4, "api_keys": ["k"], "prompt_cache": "/cache"}, load={"kv_cache": "int8"}, cpus=2
    )
    assert found.settings == Settings(slots=4, api_keys=("k",), prompt_cache=found.settings.prompt_cache)
    assert str(found.settings.prompt_cache) == "/cache"
    assert found.load_options() == {"threads": 2, "kv_cache": "int8"}


def test_texts_of_the_command_line_are_enough() -> None:
    found = ClusterConfig.model_validate({"artifacts": "/models/one,other=org/name", "replicas": "2", "cpus": "0.5"})
    assert found.artifacts == {"one": "/models/one", "other": "org/name"}
    assert (found.replicas, found.cpus, found.load_options()) == (2, 0.5, {"threads": 1})


def test_replicas_may_be_sent_what_they_run_and_what_waits() -> None:
    options = config(settings={"slots": 4, "max_queue": 6}, replicas=3, memory=1 << 30, drain=5).replica_options()
    assert options["max_ongoing_requests"] == 10
    assert options["num_replicas"] == 3
    assert options["ray_actor_options"] == {"num_cpus": 1.0, "memory": 1 << 30}
    assert options["graceful_shutdown_timeout_s"] == 5
    assert "autoscaling_config" not in options


def test_autoscaling_aims_at_the_slots() -> None:
    options = config(settings={"slots": 4}, autoscaling={"min": 1, "max": 2, "up_after": 1}).replica_options()
    assert options["autoscaling_config"]["target_ongoing_requests"] == 4
    assert (options["autoscaling_config"]["min_replicas"], options["autoscaling_config"]["max_replicas"]) == (1, 2)
    assert "num_replicas" not in options
    other = config(autoscaling=Autoscaling(target=3)).replica_options()
    assert other["autoscaling_config"]["target_ongoing_requests"] == 3


def test_half_of_the_slots_is_the_imbalance() -> None:
    assert [config(settings={"slots": slots}).preference() for slots in (1, 2, 8)] == [1, 1, 4]
    assert config(imbalance=7).preference() == 7


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replica": 2}, "replica\n  Extra inputs are not permitted"),
        ({"settings": {"slotz": 2}}, "unknown names slotz; see intaglio.serving.settings.Settings"),
        ({"load": {"theads": 2}}, "unknown names theads; see intaglio.load"),
        ({"autoscaling": {"maximum": 2}}, "autoscaling.maximum\n  Extra inputs are not permitted"),
        ({"autoscaling": {"min": 3, "max": 2}}, "min is 3 and max is 2; give a min that is not larger"),
        ({"artifacts": {}}, "artifacts\n  Value should have at least 1 item"),
        ({"replicas": 0}, "replicas\n  Input should be greater than 0"),
    ],
)
def test_a_wrong_declaration_is_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        config(**values)
