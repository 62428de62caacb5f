"""gRPC by JSON: descriptors compiled from .proto files when they are needed, and JSON objects instead of messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envctl.errors import UsageError

if TYPE_CHECKING:
    from google.protobuf.message import Message


@dataclass(frozen=True, slots=True)
class Method:
    """One unary method."""

    name: str  # "package.Service/Method"
    request: type[Message]
    response: type[Message]

    def encode(self, kind: type[Message], obj: Mapping[str, Any]) -> bytes:
        """A JSON object as a message of the request's or response's type.  Raises UsageError for what doesn't fit."""
        from google.protobuf.json_format import Error, ParseDict

        try:
            return ParseDict(dict(obj), kind()).SerializeToString(deterministic=True)
        except Error as error:
            raise UsageError(f"{self.name}: {kind.DESCRIPTOR.full_name} can't hold this: {error}") from error

    def decode(self, kind: type[Message], wire: bytes) -> dict[str, Any]:
        """A message as a JSON object, with the field names of the .proto file.  Raises ValueError for bad bytes."""
        from google.protobuf.json_format import MessageToDict
        from google.protobuf.message import DecodeError

        try:
            message = kind.FromString(wire)
        except DecodeError as error:
            raise ValueError(f"no {kind.DESCRIPTOR.full_name}: {error}") from error
        answer: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
        return answer


def compile_protos(files: Iterable[Path]) -> dict[str, Method]:
    """All unary methods of all services in the files, by name.

    Each file is compiled by itself (copies of one contract in several services don't clash), with its own directory as the
    include path.  Raises UsageError with the compiler's words.
    """
    methods: dict[str, Method] = {}
    for file in files:
        methods |= _methods(_descriptor_set(file))
    return methods


def _descriptor_set(file: Path) -> bytes:
    import subprocess
    import sys
    from importlib.resources import files as resources

    include = (f"-I{file.parent}", f"-I{resources('grpc_tools').joinpath('_proto')}")
    command = [sys.executable, "-m", "grpc_tools.protoc", *include, "--descriptor_set_out=/proc/self/fd/1", "--include_imports", str(file)]
    done = subprocess.run(command, capture_output=True, check=False)  # no file: a driver that is killed leaves none
    if done.returncode != 0:
        raise UsageError(f"{file} could not be compiled: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _methods(descriptor_set: bytes) -> dict[str, Method]:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    pool = descriptor_pool.DescriptorPool()
    methods: dict[str, Method] = {}
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file:
        pool.Add(file)
        for service in pool.FindFileByName(file.name).services_by_name.values():
            for method in service.methods:
                if not (method.client_streaming or method.server_streaming):
                    name = f"{service.full_name}/{method.name}"
                    classes = (message_factory.GetMessageClass(kind) for kind in (method.input_type, method.output_type))
                    methods[name] = Method(name, *classes)
    return methods
