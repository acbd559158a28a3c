"""The part of pynq 4's remote protocol that the driver needs, as gRPC handlers.

It knows calls, fields and their numbers, and no hardware; `hw.pynq.server` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

FIELD = descriptor_pb2.FieldDescriptorProto
TYPES = {"bool": FIELD.TYPE_BOOL, "bytes": FIELD.TYPE_BYTES, "int32": FIELD.TYPE_INT32,
         "string": FIELD.TYPE_STRING, "uint32": FIELD.TYPE_UINT32, "uint64": FIELD.TYPE_UINT64}

#: Call: the fields of its request and of its answer, numbered from 1 (`-`: a number that no field
#: has). A leading `*`: a stream of such messages.
CALLS = {
    "remote_device.RemoteDevice/existsfile": ("file_path:string", "exists:bool"),
    "remote_device.RemoteDevice/readfile": ("file_path:string", "*data:bytes"),
    "remote_device.RemoteDevice/writefile": ("*file_path:string data:bytes", ""),
    "remote_device.RemoteDevice/set_bitstream_attrs": ("binfile_name:string partial:bool",
                                                       "status:bool"),
    "mmio.Mmio/get_mmio": ("base_addr:uint64 length:uint64",
                           "status:bool msg:string mmio_id:string"),
    "mmio.Mmio/read": ("mmio_id:string length:uint64 offset:uint64 word_order:string",
                       "status:bool msg:string data:uint32"),
    "mmio.Mmio/write": ("mmio_id:string offset:uint64 data:bytes", "status:bool msg:string"),
    "buffer.RemoteBuffer/allocate": ("size:int32 dtype:string cacheable:bool",
                                     "- msg:string buffer_id:string"),
    "buffer.RemoteBuffer/write": ("*buffer_id:string data:bytes start:int32 end:int32",
                                  "- msg:string"),
    "buffer.RemoteBuffer/read": ("buffer_id:string start:int32 end:int32",
                                 "*- msg:string data:bytes"),
    "buffer.RemoteBuffer/flush": ("buffer_id:string", "- msg:string"),
    "buffer.RemoteBuffer/invalidate": ("buffer_id:string", "- msg:string"),
    "buffer.RemoteBuffer/physical_address": ("buffer_id:string", "- msg:string address:uint64"),
    "buffer.RemoteBuffer/freebuffer": ("buffer_id:string", "- msg:string"),
}


def messages() -> dict[str, tuple[Any, Any]]:
    """The classes of every call's request and answer."""
    file = descriptor_pb2.FileDescriptorProto(name="calls.proto", package="calls",
                                              syntax="proto3")
    for number, fields in enumerate(text for both in CALLS.values() for text in both):
        message = file.message_type.add(name=f"Message{number}")
        for place, field in enumerate(fields.removeprefix("*").split(), 1):
            if field != "-":
                name, kind = field.split(":")
                message.field.add(name=name, number=place, type=TYPES[kind],
                                  label=FIELD.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    classes = [message_factory.GetMessageClass(pool.FindMessageTypeByName(f"calls.{item.name}"))
               for item in file.message_type]
    return dict(zip(CALLS, zip(classes[::2], classes[1::2], strict=True), strict=True))


def handlers(answers: Any) -> list[Any]:
    """gRPC handlers that call `answers.existsfile(request)` and so on; `write` of a buffer is
    `answers.buffer_write`, of a register `answers.mmio_write`, and so are the two `read`s.

    An answer is a dict of fields, a stream of answers an iterable of dicts, a stream of requests
    an iterator. A `RuntimeError` or `ValueError` ends the call with its text.
    """
    services: dict[str, dict[str, Any]] = {}
    for call, (request, answer) in messages().items():
        service, name = call.split("/")
        asked, answered = (text.startswith("*") for text in CALLS[call])
        lead = f"{service.split('.')[0]}_" if name in ("read", "write") else ""
        make = getattr(grpc, f"{'stream' if asked else 'unary'}_"
                             f"{'stream' if answered else 'unary'}_rpc_method_handler")
        act = (_stream if answered else _single)(getattr(answers, lead + name), answer)
        services.setdefault(service, {})[name] = make(
            act, request_deserializer=request.FromString,
            response_serializer=answer.SerializeToString)
    return [grpc.method_handlers_generic_handler(service, methods)
            for service, methods in services.items()]


def _single(function: Callable[[Any], dict[str, Any]], answer: Any) -> Callable[[Any, Any], Any]:
    def act(request: Any, context: Any) -> Any:
        try:
            return answer(**function(request))
        except (RuntimeError, ValueError) as error:
            return context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
    return act


def _stream(function: Callable[[Any], Iterable[dict[str, Any]]],
            answer: Any) -> Callable[[Any, Any], Any]:
    def act(request: Any, context: Any) -> Any:
        try:
            for fields in function(request):
                yield answer(**fields)
        except (RuntimeError, ValueError) as error:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
    return act
