"""The declaration of an application on Ray Serve: the ``args`` of ``serve run``, ``serve deploy`` and KubeRay."""

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Self, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from ...runtime.load import LoadOptions
from ..settings import Settings


def _named(value: Any) -> Any:
    """Return artifacts by name: ``serve run`` gives texts only, so one or more ``NAME=PATH`` or ``PATH``."""
    if not isinstance(value, str):
        return value
    named = [part.partition("=") if "=" in part else (Path(part).name, "", part) for part in value.split(",")]
    return {name: source for name, _, source in named}


def _known(names: Iterable[str], where: str) -> BeforeValidator:
    """Return a validator that refuses unknown names, which pydantic ignores in a dataclass."""
    known = set(names)

    def check(value: Any) -> Any:
        if isinstance(value, dict) and (unknown := set(value) - known):
            raise ValueError(f"unknown names {', '.join(sorted(unknown))}; see {where}")
        return value

    return BeforeValidator(check)


class Autoscaling(BaseModel):
    """Replicas by load: as many as bring the requests of each one to ``target``.

    Attributes:
        target: how many requests a replica should have, waiting ones included; None for the slots of a model.
        up_after, down_after: seconds that the load must be so before a replica is started or ended.
    """

    model_config = ConfigDict(extra="forbid")

    min: Annotated[int, Field(ge=0)] = 1
    max: PositiveInt = 4
    target: PositiveFloat | None = None
    up_after: PositiveFloat = 10.0
    down_after: PositiveFloat = 600.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min is {self.min} and max is {self.max}; give a min that is not larger")
        return self


class ClusterConfig(BaseModel):
    """An application on Ray Serve.

    Attributes:
        artifacts: name → folder, which every machine has under this path, or hub id.
        settings: of the server in each replica, with the names of ``Settings``.
        load: how each replica loads its artifacts, with the names of ``LoadOptions``.
        replicas: how many.
        autoscaling: how many by load, instead of ``replicas``.
        cpus: processors of a replica; it runs on a machine that has as many free, with as many threads.
        memory: bytes that a machine must have free for a replica; None does not ask.
        gateways: how many processes receive the requests; a gateway that dies loses those that it has.
        affinity: send requests to the replica that has read their beginning.
        imbalance: a replica is not preferred for what it has read where it has so many more requests than the least
            busy one; None for half of the slots.
        attempts: on how many replicas a request is tried, where they die before it is answered. A request that makes
            replicas die ends no more of them.
        drain: seconds that a replica which is ended has to finish its requests.
        health_period: seconds between two checks of a replica's health.
    """

    model_config = ConfigDict(extra="forbid")

    artifacts: Annotated[dict[str, str], BeforeValidator(_named), Field(min_length=1)]
    settings: Annotated[
        Settings, _known((field.name for field in fields(Settings)), "intaglio.serving.settings.Settings")
    ] = Settings()
    load: Annotated[dict[str, Any], _known(LoadOptions.__annotations__, "intaglio.load")] = {}
    replicas: PositiveInt = 1
    autoscaling: Autoscaling | None = None
    cpus: PositiveFloat = 1.0
    memory: PositiveInt | None = None
    gateways: PositiveInt = 1
    affinity: bool = True
    imbalance: PositiveInt | None = None
    attempts: PositiveInt = 2
    drain: PositiveFloat = 60.0
    health_period: PositiveFloat = 10.0

    def load_options(self) -> LoadOptions:
        """Return the options of ``load``: the threads are the replica's processors, where not given."""
        return cast(LoadOptions, {"threads": max(1, int(self.cpus)), **self.load})

    def replica_options(self) -> dict[str, Any]:
        """Return the options of the replicas' deployment, as ``ray.serve.deployment`` names them."""
        slots = self.settings.slots
        options: dict[str, Any] = {
            "ray_actor_options": {"num_cpus": self.cpus, **({"memory": self.memory} if self.memory else {})},
            # What a replica may be sent: what it runs, and what waits in it; beyond that requests wait in the gateway.
            "max_ongoing_requests": slots + self.settings.max_queue,
            "graceful_shutdown_timeout_s": self.drain,
            "graceful_shutdown_wait_loop_s": 0.5,
            "health_check_period_s": self.health_period,
        }
        if (scaling := self.autoscaling) is None:
            return {**options, "num_replicas": self.replicas}
        options["autoscaling_config"] = {
            "min_replicas": scaling.min,
            "max_replicas": scaling.max,
            "target_ongoing_requests": scaling.target or slots,
            "upscale_delay_s": scaling.up_after,
            "downscale_delay_s": scaling.down_after,
            "look_back_period_s": max(scaling.up_after, 1.0),
            "metrics_interval_s": min(scaling.up_after, 10.0) / 2,
        }
        return options

    def preference(self) -> int:
        """Return ``imbalance``, by default half of the slots."""
        return self.imbalance or max(1, self.settings.slots // 2)
