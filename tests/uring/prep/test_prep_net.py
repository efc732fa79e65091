"""Sockets, sends and receives, run."""

import array
import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from iocancel._native import ffi
from iocancel.errors import FeatureUnavailable
from iocancel.uring import MsgHdr, RecvSendFlags, Ring, SockAddr
from iocancel.uring.prep_recv import RecvmsgOut, control_messages

NOTIF_COPIED = 1 << 31
IP_RECVTTL = 12  # Python has no name for it


@pytest.fixture
def sockets(no_file_is_left_open: None) -> Iterator[ExitStack]:
    """What is entered here is closed at the end."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def pair(sockets: ExitStack) -> tuple[socket.socket, socket.socket]:
    left, right = socket.socketpair()
    return sockets.enter_context(left), sockets.enter_context(right)


@pytest.fixture
def listener(sockets: ExitStack) -> socket.socket:
    return sockets.enter_context(socket.create_server(("127.0.0.1", 0)))


@pytest.fixture
def tcp(sockets: ExitStack, listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    client = sockets.enter_context(socket.create_connection(listener.getsockname()))
    return client, sockets.enter_context(listener.accept()[0])


@pytest.fixture
def udp(sockets: ExitStack) -> tuple[socket.socket, socket.socket]:
    made = [sockets.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2)]
    for sock in made:
        sock.bind(("127.0.0.1", 0))
    return made[0], made[1]


def test_send_and_recv(go: Any, pair: Any) -> None:
    assert go.ok("send", pair[0], b"hello", socket.MSG_NOSIGNAL) == 5
    buffer = bytearray(16)
    assert go.ok("recv", pair[1], buffer, socket.MSG_PEEK) == 5
    assert go.ok("recv", pair[1], memoryview(buffer)[8:], ioprio=RecvSendFlags.POLL_FIRST) == 5
    assert buffer[8:13] == b"hello"
    pair[0].close()
    assert go.ok("recv", pair[1], buffer) == 0


def test_a_receive_that_is_cancelled_takes_nothing(go: Any, pair: Any) -> None:
    assert go.cancel(go.start("recv", pair[1], bytearray(16))).res == -errno.ECANCELED
    pair[0].send(b"kept")
    assert pair[1].recv(16) == b"kept"


def test_a_send_to_an_address(go: Any, udp: Any) -> None:
    here, there = udp
    try:
        assert go("sendto", here, b"one", 0, there.getsockname()).check() == 3
    except FeatureUnavailable as error:
        pytest.skip(str(error))
    assert there.recvfrom(16) == (b"one", here.getsockname())
    sqe = go.ring.get_sqe()
    sqe.prep_send(here, b"two")
    sqe.prep_send_set_addr(SockAddr(socket.AF_INET, there.getsockname()))
    go.ring.submit()
    [cqe] = go.wait()
    assert cqe.check() == 3
    assert there.recv(16) == b"two"


def test_messages_with_address_and_ancillary_data(go: Any, udp: Any) -> None:
    here, there = udp
    there.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
    out = MsgHdr([b"ab", b"cde"], name=SockAddr(socket.AF_INET, there.getsockname()))
    first, second, control = bytearray(3), bytearray(8), bytearray(64)
    into = MsgHdr([first, second], name=SockAddr(), control=control)
    for _ in range(2):  # a MsgHdr can be used again
        assert go.ok("sendmsg", here, out) == 5
        assert go.ok("recvmsg", there, into) == 5
        assert first + second[:2] == b"abcde"
        assert into.name == here.getsockname()
        assert into.flags == 0
        [(level, kind, data)] = control_messages(memoryview(control)[: into.controllen])
        assert (level, kind) == (socket.IPPROTO_IP, socket.IP_TTL)
        assert struct.unpack("i", data)[0] > 0


def test_a_file_sent_in_a_message(go: Any, pair: Any) -> None:
    rights = struct.pack("@Niii", struct.calcsize("@Nii") + 4, socket.SOL_SOCKET, socket.SCM_RIGHTS, 0)
    with open(os.devnull, "rb") as null:
        rights = rights[:-4] + struct.pack("i", null.fileno())
        assert go.ok("sendmsg", pair[0], MsgHdr([b"x"], control=rights.ljust(24, b"\0"))) == 1
    control = bytearray(64)
    into = MsgHdr([bytearray(1)], control=control)
    assert go.ok("recvmsg", pair[1], into) == 1
    [(_, kind, data)] = control_messages(memoryview(control)[: into.controllen])
    assert kind == socket.SCM_RIGHTS
    [fd] = struct.unpack("i", data)
    assert os.readlink(f"/proc/self/fd/{fd}") == os.devnull
    os.close(fd)


def test_a_message_that_is_too_long(go: Any, udp: Any) -> None:
    udp[0].sendto(b"hello", udp[1].getsockname())
    into = MsgHdr([bytearray(2)])
    assert go.ok("recvmsg", udp[1], into) == 2
    assert into.flags & socket.MSG_TRUNC
    assert into.name is None


def test_receives_into_a_group(go: Any, pair: Any) -> None:
    group = go.group(4, 64)
    for arguments in (
        ("recv", pair[1], None, 0),
        ("recvmsg", pair[1], MsgHdr([bytearray(64)])),
        ("recvmsg", pair[1], MsgHdr([bytearray(64)])),
    ):
        pair[0].send(b"hello")
        cqe = go(*arguments, buf_group=7)
        assert cqe.check() == 5
        assert group.take(cqe) == b"hello"


def test_a_multishot_receive(go: Any, pair: Any) -> None:
    group = go.group(4, 64)
    number = go.start("recv_multishot", pair[1], 7)
    for word in (b"one", b"two", b"three"):
        pair[0].send(word)
        [cqe] = go.wait()
        if cqe.res == -errno.EINVAL:
            pytest.skip("this kernel has no multishot receives")
        assert cqe.more
        assert group.take(cqe) == word
    cqe = go.cancel(number)
    assert (cqe.res, cqe.more) == (-errno.ECANCELED, False)


def test_a_multishot_receive_that_finds_no_buffer(go: Any, pair: Any) -> None:
    go.group(1, 64)
    pair[0].send(b"one")
    go.start("recv_multishot", pair[1], 7)
    [cqe] = go.wait()
    if cqe.res == -errno.EINVAL:
        pytest.skip("this kernel has no multishot receives")
    pair[0].send(b"two")
    last = go.wait()[0] if cqe.more else cqe
    assert (last.res, last.more) == (-errno.ENOBUFS, False)


def test_a_multishot_receive_of_messages(go: Any, udp: Any) -> None:
    here, there = udp
    there.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
    group = go.group(4, 512)
    msg = MsgHdr([], name=SockAddr(), control=bytearray(64))
    number = go.start("recvmsg_multishot", there, msg, 7)
    for word in (b"one", b"two", b""):
        here.sendto(word, there.getsockname())
        [cqe] = go.wait()
        if cqe.res == -errno.EINVAL:
            pytest.skip("this kernel has no multishot receives")
        assert cqe.more or not word  # an empty message may end it
        out = RecvmsgOut(group.view(cqe), msg)
        assert (out.payload, out.payloadlen, out.name, out.flags) == (word, len(word), here.getsockname(), 0)
        assert [kind for _, kind, _ in control_messages(out.control)] == [socket.IP_TTL]
        group.recycle(cqe)
    assert not cqe.more or not go.cancel(number).more


def test_a_send_from_a_group(go: Any, tcp: Any) -> None:
    go.group(2, 4)
    try:
        assert go("send", tcp[0], None, nbytes=3, buf_group=7).check() == 3
    except FeatureUnavailable as error:
        pytest.skip(str(error))
    assert tcp[1].recv(16) == bytes(3)


def test_a_bundle_sent_from_a_group(go: Any, tcp: Any) -> None:
    go.group(2, 4)
    go.start("send_bundle", tcp[0], 0, 0, 7)
    [cqe] = go.wait()
    if cqe.res in (-errno.EINVAL, -errno.EOPNOTSUPP):
        pytest.skip("this kernel sends no bundles")
    assert (cqe.check(), cqe.buffer_id) == (8, 0)
    if cqe.more:  # kernels differ in whether they look for more before the last completion
        [last] = go.wait()
        assert (last.res, last.more) == (-errno.ENOBUFS, False)
    assert tcp[1].recv(16) == bytes(8)


@pytest.mark.parametrize("kind", ["send_zc", "send_zc_fixed", "sendmsg_zc", "sendmsg_zc_fixed"])
def test_zero_copy_sends(go: Any, ring: Ring, tcp: Any, kind: str) -> None:
    buffer = bytearray(b"hello" * 1000)
    if kind.endswith("fixed"):
        ring.register_buffers([buffer])
    message = "msg" in kind
    go.start(kind, tcp[0], MsgHdr([buffer]) if message else buffer)
    [first] = go.wait()
    if first.res in (-errno.EINVAL, -errno.EOPNOTSUPP):
        with pytest.raises(FeatureUnavailable):
            first.check()
        pytest.skip(f"this kernel has no {kind}")
    assert first.more
    sent = first.check()
    got = 0
    while got < sent:
        got += len(tcp[1].recv(1 << 16))
    [second] = go.wait()
    assert second.notification
    assert not second.more
    assert ring.in_flight == 0
    if kind.endswith("fixed"):
        ring.unregister_buffers()
    buffer.clear()  # nothing pins it any more


def test_a_zero_copy_send_that_tells_of_copies(go: Any, tcp: Any) -> None:
    go.start("send_zc", tcp[0], b"hello", 0, RecvSendFlags.SEND_ZC_REPORT_USAGE)
    [first] = go.wait()
    if first.res == -errno.EINVAL:
        pytest.skip("this kernel does not tell")
    assert tcp[1].recv(16) == b"hello"
    [second] = go.wait()
    assert second.notification
    assert second.res & 0xFFFFFFFF in (0, NOTIF_COPIED)


def test_accept_and_connect(go: Any, sockets: ExitStack, listener: socket.socket) -> None:
    client = sockets.enter_context(socket.socket())
    client.setblocking(False)
    accepting = go.start("accept", listener, peer := SockAddr(), socket.SOCK_CLOEXEC)
    connecting = go.start("connect", client, listener.getsockname())
    results = {c.user_data: c.check() for c in go.wait(2)}
    server = sockets.enter_context(socket.socket(fileno=results[accepting]))
    assert results[connecting] == 0
    assert peer.value == client.getsockname() == server.getpeername()
    assert not server.get_inheritable()


def test_a_refused_connection(go: Any, sockets: ExitStack, listener: socket.socket) -> None:
    address = listener.getsockname()
    listener.close()
    client = sockets.enter_context(socket.socket())
    with pytest.raises(ConnectionRefusedError):
        go("connect", client, address).check()


def test_an_accept_that_is_cancelled(go: Any, listener: socket.socket) -> None:
    assert go.cancel(go.start("accept", listener)).res == -errno.ECANCELED


def test_a_multishot_accept(go: Any, sockets: ExitStack, listener: socket.socket) -> None:
    number = go.start("multishot_accept", listener)
    for _ in range(3):
        sockets.enter_context(socket.create_connection(listener.getsockname()))
        [cqe] = go.wait()
        if cqe.res == -errno.EINVAL:
            pytest.skip("this kernel has no multishot accepts")
        os.close(cqe.check())
        assert cqe.more
    assert not go.cancel(number).more


def test_accepts_into_the_registered_files(
    go: Any, ring: Ring, sockets: ExitStack, listener: socket.socket
) -> None:
    ring.register_files([-1] * 8)
    address = listener.getsockname()
    sockets.enter_context(socket.create_connection(address))
    assert go.ok("accept_direct", listener, None, 0, 5) == 0
    sockets.enter_context(socket.create_connection(address))
    try:
        second = go("accept_direct", listener).check()  # whichever slot is free
    except FeatureUnavailable as error:
        pytest.skip(str(error))
    number = go.start("multishot_accept_direct", listener)
    sockets.enter_context(socket.create_connection(address))
    [cqe] = go.wait()
    assert cqe.more
    taken = {5, second, cqe.check()}
    assert len(taken) == 3
    assert not go.cancel(number).more
    assert {slot for slot in range(8) if go("close_direct", slot).res == 0} == taken


def test_bind_and_listen(go: Any, sockets: ExitStack) -> None:
    server = sockets.enter_context(socket.socket())
    assert go.ok("bind", server, ("127.0.0.1", 0)) == 0
    assert go.ok("listen", server, 5) == 0
    sockets.enter_context(socket.create_connection(server.getsockname()))
    assert go("bind", server, SockAddr(socket.AF_INET, ("127.0.0.1", 0)).raw).res == -errno.EINVAL


def test_shutdown(go: Any, pair: Any) -> None:
    assert go.ok("shutdown", pair[0], socket.SHUT_WR) == 0
    assert pair[1].recv(1) == b""


def test_sockets_are_made(go: Any, ring: Ring) -> None:
    made = socket.socket(fileno=go.ok("socket", socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC))
    assert (made.family, made.type) == (socket.AF_INET, socket.SOCK_DGRAM)
    made.close()
    ring.register_files([-1] * 4)
    assert go.ok("socket_direct", socket.AF_INET, socket.SOCK_STREAM, 0, 2) == 0
    taken = {go.ok("socket_direct", socket.AF_INET, socket.SOCK_STREAM)}
    taken |= {go.ok("socket_direct_alloc", socket.AF_INET, socket.SOCK_STREAM) for _ in range(2)}
    assert taken == {0, 1, 3}
    assert go("socket_direct_alloc", socket.AF_INET, socket.SOCK_STREAM).res == -errno.ENFILE


def test_options_and_queues(go: Any, pair: Any) -> None:
    size = array.array("i", [0])
    assert go.ok("cmd_sock", 2, pair[0], socket.SOL_SOCKET, socket.SO_TYPE, size) == 4
    assert size[0] == socket.SOCK_STREAM
    assert go.ok("cmd_sock", 3, pair[0], socket.SOL_SOCKET, socket.SO_KEEPALIVE, array.array("i", [1])) == 0
    assert pair[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


def test_what_is_queued(go: Any, tcp: Any) -> None:
    tcp[0].send(b"hello")
    assert tcp[1].recv(5, socket.MSG_PEEK) == b"hello"  # it has come
    assert go.ok("cmd_sock", 0, tcp[1]) == 5
    assert go.ok("cmd_sock", 1, tcp[1]) == 0


def test_a_socket_filter_does_not_overflow_its_buffer(go: Any, pair: Any) -> None:
    # Four instructions "accept all", of 8 bytes each; the kernel counts its buffer in these.
    code = bytearray(struct.pack("=HBBI", 0x06, 0, 0, 0xFFFF) * 4)
    pin = ffi.from_buffer("uint8_t[]", code)
    address = int(ffi.cast("uintptr_t", pin))
    pair[0].setsockopt(socket.SOL_SOCKET, 26, struct.pack("@HP", 4, address))
    buffer = bytearray(64)
    cqe = go("cmd_sock", 2, pair[0], socket.SOL_SOCKET, 26, memoryview(buffer)[:24])
    if cqe.res == -errno.EOPNOTSUPP:
        pytest.skip("this kernel gets no options")
    assert cqe.res == -errno.EINVAL  # no room for four
    assert buffer == bytes(64)
    assert go("cmd_sock", 2, pair[0], socket.SOL_SOCKET, 26, memoryview(buffer)[:32]).res == 4
    assert buffer[32:] == bytes(32)
    assert buffer[:32] == code


def test_the_addresses_of_a_socket(go: Any, tcp: Any) -> None:
    own, peer = SockAddr(), SockAddr()
    assert go.ok("cmd_getsockname", tcp[0], own) == 0
    assert go.ok("cmd_getsockname", tcp[0], peer, True) == 0
    assert (own.value, peer.value) == (tcp[0].getsockname(), tcp[1].getsockname())
