"""The application on Ray Serve: ``serve run intaglio.serving.cluster.build:build artifacts=out``."""

# pyright: reportMissingImports=false

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from starlette.types import ASGIApp, Message

from ...extras import ray_extra
from ..errors import ApiError
from ..http.inprocess import Answer, Call
from .config import ClusterConfig
from .gateway import Gateway, ReplicaLostError
from .replica import Replica

with ray_extra():
    from ray import exceptions, serve
    from ray.serve.config import RequestRouterConfig
    from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
    from ray.serve.handle import DeploymentHandle

LOST = (
    exceptions.RayActorError,
    exceptions.WorkerCrashedError,
    exceptions.NodeDiedError,
    exceptions.ObjectLostError,
)
"""What Ray raises where the process that runs a call has ended."""


class GatewayDeployment:
    """The gateway as Ray Serve makes it: its calls go through a handle of the replicas."""

    def __init__(self, config: ClusterConfig, replicas: DeploymentHandle[Any]) -> None:
        self._config = config
        self._answers = replicas.options(stream=True, method_name="answer")
        self._replicas = replicas

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return Gateway(self._forward, self._ask_all, self._config.settings, self._config.attempts)

    async def _forward(self, call: Call, links: Sequence[int]) -> AsyncGenerator[list[Message], None]:
        """Send a request to the replica that the router chooses.

        Raises:
            ReplicaLostError: the replica has died.
            ApiError: 503 where there are no replicas and there will be none.
        """
        response = self._answers.remote(call, links=links)
        try:
            async for batch in response:  # pyright: ignore[reportGeneralTypeIssues]
                yield batch
        except LOST as error:
            if isinstance(error, exceptions.RayTaskError):  # raised by the replica's code: the replica is there
                raise
            raise ReplicaLostError(str(error).partition("\n")[0]) from error
        except (BackPressureError, DeploymentUnavailableError) as error:
            raise ApiError(
                f"no replica takes the request: {error}; try again later",
                status=503,
                kind="server_error",
                code="unavailable",
                retry_after=5,
            ) from error
        finally:
            response.cancel()  # does nothing where it has ended

    async def _ask_all(self, call: Call) -> dict[str, Answer]:
        """Send a request to every replica; return the answers of those that answer, by the replicas' names."""
        response = self._replicas.broadcast("whole_answer", call)
        found = await response.results_async(timeout_s=self._config.settings.body_timeout, return_exceptions=True)
        return dict(one for one in found if not isinstance(one, BaseException))


def build(args: ClusterConfig) -> serve.Application:
    """Return the application that a declaration describes; ``serve run`` and KubeRay call this with their ``args``."""
    options = args.replica_options()
    if args.affinity:
        options["request_router_config"] = RequestRouterConfig(
            request_router_class="intaglio.serving.cluster.router:PrefixRouter",  # pyright: ignore[reportArgumentType]
            request_router_kwargs={"imbalance": args.preference()},
        )
    replicas = serve.deployment(Replica, **options)
    gateway = serve.deployment(
        serve.ingress()(GatewayDeployment),
        name="Gateway",
        num_replicas=args.gateways,
        max_ongoing_requests=10_000,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=args.drain,
    )
    return gateway.bind(args, replicas.bind(args))  # pyright: ignore[reportFunctionMemberAccess]
