"""The gRPC server of the provider, attached by an engine or started by one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf import empty_pb2
from pulumi.provider.experimental import provider as sdk
from pulumi.provider.experimental.server import ProviderServicer
from pulumi.runtime._grpc_settings import _GRPC_CHANNEL_OPTIONS
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from envctl import __version__
from envctl.errors import EnvctlError
from envctl.stack_provider.ground import Substrates, installed
from envctl.stack_provider.provider import EnvctlProvider


class Servicer(ProviderServicer):
    """The SDK's servicer with what an attached provider needs, and with errors that are messages instead of tracebacks."""

    async def Handshake(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 — the protocol's name
        """Agrees to be attached."""
        return provider_pb2.ProviderHandshakeResponse()

    async def Attach(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        """The engine tells its address; nothing of ours calls back."""
        self._engine_address = request.address
        return empty_pb2.Empty()

    async def Create(self, request: Any, context: Any) -> Any:  # noqa: N802
        """As the SDK's."""
        return await self._explained(super().Create, request, context)

    async def Update(self, request: Any, context: Any) -> Any:  # noqa: N802
        """As the SDK's."""
        return await self._explained(super().Update, request, context)

    async def Delete(self, request: Any, context: Any) -> Any:  # noqa: N802
        """As the SDK's."""
        return await self._explained(super().Delete, request, context)

    async def Diff(self, request: Any, context: Any) -> Any:  # noqa: N802
        """As the SDK's."""
        return await self._explained(super().Diff, request, context)

    async def Read(self, request: Any, context: Any) -> Any:  # noqa: N802
        """As the SDK's."""
        return await self._explained(super().Read, request, context)

    @staticmethod
    async def _explained(method: Callable[[Any, Any], Any], request: Any, context: Any) -> Any:
        try:
            return await method(request, context)
        except EnvctlError as error:
            await context.abort(grpc.StatusCode.UNKNOWN, error.message)


async def serve(provider: sdk.Provider) -> tuple[grpc.aio.Server, int]:
    """Starts the provider's server on loopback; returns it and its port."""
    server = grpc.aio.server(options=_GRPC_CHANNEL_OPTIONS)
    servicer = Servicer([], __version__, provider, engine_address="")
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


def main(substrates: Substrates = installed) -> None:
    """The plug-in `pulumi-resource-envctl`: prints its port and serves until the engine ends it."""

    async def run() -> None:
        server, port = await serve(EnvctlProvider(substrates))
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()
        await server.wait_for_termination()

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        sys.exit(0)
