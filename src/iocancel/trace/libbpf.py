"""The little of libbpf that `ebpf` calls, and the kernel's types as libbpf reads them.

libbpf is opened when it is first asked for: it is an extra, and nothing is linked to it. 1.0 or later is
wanted (`libbpf.so.1`: Debian since 12), whose calls return a negated errno.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any, NamedTuple

from iocancel.errors import check

KIND_INT, KIND_PTR, KIND_STRUCT, KIND_UNION, KIND_TYPEDEF, KIND_FUNC_PROTO = 1, 2, 4, 5, 8, 13

_POINTER, _INT, _U32, _TEXT = ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_char_p
_CALLS: dict[str, tuple[Any, list[Any]]] = {
    "bpf_map_create": (_INT, [_INT, _TEXT, _U32, _U32, _U32, _POINTER]),
    "bpf_map_lookup_elem": (_INT, [_INT, _POINTER, _POINTER]),
    "bpf_map_lookup_and_delete_elem": (_INT, [_INT, _POINTER, _POINTER]),
    "bpf_prog_load": (_INT, [_INT, _TEXT, _TEXT, _TEXT, ctypes.c_size_t, _POINTER]),
    "bpf_raw_tracepoint_open": (_INT, [_TEXT, _INT]),
    "btf__load_vmlinux_btf": (_POINTER, []),
    "btf__free": (None, [_POINTER]),
    "btf__find_by_name_kind": (_INT, [_POINTER, _TEXT, _U32]),
    "btf__type_by_id": (_POINTER, [_POINTER, _U32]),
    "btf__name_by_offset": (_TEXT, [_POINTER, _U32]),
    "btf__resolve_type": (_INT, [_POINTER, _U32]),
    "btf__resolve_size": (ctypes.c_int64, [_POINTER, _U32]),
    "libbpf_set_print": (_POINTER, [_POINTER]),
}


class Missing(Exception):
    """What is wanted is not here; its text says what."""


@functools.cache
def load() -> Any:
    """The library, with its calls declared. Raises `Missing` where it is not installed, or too old."""
    try:
        library = ctypes.CDLL("libbpf.so.1", use_errno=True)
        for name, (result, arguments) in _CALLS.items():
            call = getattr(library, name)
            call.restype, call.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise Missing(f"libbpf 1.0 or later is wanted (apt install libbpf1): {error}") from None
    library.libbpf_set_print(None)  # it would write to stderr; errors are told by exceptions here
    return library


def asked(call: str, *arguments: Any) -> int:
    """Make a call of libbpf's that returns a number, or a negated errno; that raises an OSError."""
    number = getattr(load(), call)(*arguments)
    return check(int(number), call)


def made(call: str, *arguments: Any) -> int:
    """Make a call of libbpf's that returns a pointer, or none and an errno; that raises an OSError."""
    address = getattr(load(), call)(*arguments)
    if not address:
        check(-(ctypes.get_errno() or 1), call)
    return int(address)


class Member(NamedTuple):
    """Where a field is, in bytes, and how it is to be read."""

    offset: int
    size: int
    signed: bool


class _Type(ctypes.Structure):
    """struct btf_type of linux/btf.h. `size` is another type's number for what has no size of its own."""

    _fields_ = (("name", _U32), ("info", _U32), ("size", _U32))


class _Field(ctypes.Structure):
    """struct btf_member of linux/btf.h."""

    _fields_ = (("name", _U32), ("type", _U32), ("offset", _U32))


class Btf:
    """The running kernel's types. A context manager; `Missing` on entering where it tells none."""

    def __enter__(self) -> Btf:
        """Read them."""
        library = load()
        try:
            self._btf = made("btf__load_vmlinux_btf")
        except OSError as error:
            raise Missing(
                f"this kernel tells nothing of its types (CONFIG_DEBUG_INFO_BTF): {error}"
            ) from None
        self._library = library
        return self

    def __exit__(self, *_: object) -> None:
        """Forget them."""
        self._library.btf__free(self._btf)

    def member(self, name: str, path: str) -> Member:
        """Where a struct's field is; `path` may go through structs in it ("cqe.user_data").

        Raises:
            Missing: this kernel has no such struct, or no such field in it.
        """
        found = self._library.btf__find_by_name_kind(self._btf, name.encode(), KIND_STRUCT)
        if found < 0:
            raise Missing(f"this kernel has no struct {name}")
        offset, kind = 0, found
        for part in path.split("."):
            step = self._step(kind, part)
            if step is None:
                raise Missing(f"this kernel has no {path} in its struct {name}")
            offset, kind = offset + step[0], step[1]
        size = check(self._library.btf__resolve_size(self._btf, kind), "btf__resolve_size")
        number, info = self._resolved(kind)
        # An int's encoding follows its btf_type; bit 24 says that it is signed.
        signed = info == KIND_INT and bool(_U32.from_address(number + ctypes.sizeof(_Type)).value >> 24 & 1)
        return Member(offset, size, signed)

    def parameters(self, name: str) -> list[str]:
        """The structs that a typedef'ed function pointer's parameters point to, "" for what is no such.

        Raises:
            Missing: this kernel has no such typedef.
        """
        kind = self._library.btf__find_by_name_kind(self._btf, name.encode(), KIND_TYPEDEF)
        if kind < 0:
            raise Missing(f"this kernel has no {name}")
        address, what = self._resolved(kind)
        if what == KIND_PTR:
            address, what = self._resolved(_Type.from_address(address).size)
        if what != KIND_FUNC_PROTO:
            raise Missing(f"this kernel's {name} is not a function's")
        count = _Type.from_address(address).info & 0xFFFF
        pairs = (ctypes.c_uint32 * (2 * count)).from_address(address + ctypes.sizeof(_Type))
        return [self._pointed(kind) for kind in pairs[1::2]]

    def _pointed(self, kind: int) -> str:
        address, what = self._resolved(kind) if kind else (0, 0)
        if what != KIND_PTR or not (target := _Type.from_address(address).size):
            return ""
        address, what = self._resolved(target)
        return self._text(_Type.from_address(address).name) if what == KIND_STRUCT else ""

    def _step(self, kind: int, name: str) -> tuple[int, int] | None:
        """A field of a struct or union, or of what is in it without a name: its offset and its type."""
        address, what = self._resolved(kind)
        if what not in (KIND_STRUCT, KIND_UNION):
            return None
        info = _Type.from_address(address).info
        fields = (_Field * (info & 0xFFFF)).from_address(address + ctypes.sizeof(_Type))
        for field in fields:
            # With the kind flag, the upper bits are a bit field's size.
            offset = (field.offset & 0xFFFFFF if info >> 31 else field.offset) // 8
            text = self._text(field.name)
            if text == name:
                return offset, field.type
            if not text and (inner := self._step(field.type, name)) is not None:
                return offset + inner[0], inner[1]
        return None

    def _resolved(self, kind: int) -> tuple[int, int]:
        """A type without its typedefs and qualifiers: the address of its btf_type, and its kind."""
        plain = check(self._library.btf__resolve_type(self._btf, kind), "btf__resolve_type")
        address = int(self._library.btf__type_by_id(self._btf, plain))
        return address, _Type.from_address(address).info >> 24 & 0x1F

    def _text(self, offset: int) -> str:
        return (self._library.btf__name_by_offset(self._btf, offset) or b"").decode()
