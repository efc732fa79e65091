#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "attempt.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define NOWAIT 8 /* RWF_NOWAIT, Linux 4.14 */
#define SMALL 4096 /* what a pipe that is ready takes without waiting: PIPE_BUF, one page */
#define SLOW 256 /* bytes that one attempt writes to a terminal that can't be opened once more */

static int64_t told(int64_t r)
{
	return r < 0 ? -errno : r;
}

static int64_t later(struct ioc_attempt *a, int fd, int events)
{
	a->wait_fd = fd;
	a->wait_events = events;
	return -EAGAIN;
}

/* What is there of `events`; POLLNVAL for a number that is no file. */
static int ready(int fd, int events)
{
	struct pollfd p = { .fd = fd, .events = (short)events };

	return poll(&p, 1, 0) > 0 ? (unsigned short)p.revents : 0;
}

static int blocks(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags >= 0 && !(flags & O_NONBLOCK);
}

/* A poll stays at the file that it was armed on, whatever becomes of the number. Another file's bytes are
 * not taken. (Files without an inode of their own, as eventfds, can't be told apart by this.) */
static int same(struct ioc_attempt *a, struct stat *st)
{
	if (fstat(a->fd, st) < 0)
		return -errno;
	if (!a->known) {
		a->dev = st->st_dev;
		a->ino = st->st_ino;
		a->known = 1;
	}
	return a->dev == st->st_dev && a->ino == st->st_ino ? 0 : -EBADF;
}

static const struct iovec *vector(const struct ioc_attempt *a)
{
	return (const struct iovec *)(uintptr_t)a->buf;
}

static int64_t plain(const struct ioc_attempt *a, int fd, int write)
{
	return told(write ? writev(fd, vector(a), (int)a->n) : readv(fd, vector(a), (int)a->n));
}

/* Writes no more than `most` bytes, out of the first piece that has any. */
static int64_t some(const struct ioc_attempt *a, size_t most)
{
	const struct iovec *v = vector(a);
	uint64_t i = 0;

	while (i + 1 < a->n && !v[i].iov_len)
		i++;
	if (!a->n)
		return 0;
	return told(write(a->fd, v[i].iov_base, v[i].iov_len < most ? v[i].iov_len : most));
}

/* A terminal that says that it is ready may have room for a single byte. */
static int64_t byte_by_byte(const struct ioc_attempt *a)
{
	const struct iovec *v = vector(a);
	int64_t r, done = 0;
	uint64_t i;
	size_t k;

	for (i = 0; i < a->n; i++)
		for (k = 0; k < v[i].iov_len; k++) {
			if (done && (done == SLOW || !(ready(a->fd, POLLOUT) & POLLOUT)))
				return done;
			r = told(write(a->fd, (char *)v[i].iov_base + k, 1));
			if (r <= 0)
				return done ? done : r;
			done++;
		}
	return done;
}

/* The same file with O_NONBLOCK, by a description of its own. */
static int again(const struct ioc_attempt *a, int write)
{
	char path[40];
	int flags = fcntl(a->fd, F_GETFL);

	snprintf(path, sizeof(path), "/proc/self/fd/%d", a->fd);
	return open(path, (write ? O_WRONLY : O_RDONLY) | (flags & O_DIRECT) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

/* For files that don't know RWF_NOWAIT: FIFOs and, before 6.4, pipes; terminals; many devices. */
static int64_t slow_transfer(struct ioc_attempt *a, int write, const struct stat *st)
{
	int events = write ? POLLOUT : POLLIN, fifo = S_ISFIFO(st->st_mode), tty = 0, fd;
	struct termios modes;
	int64_t r;

	if (!blocks(a->fd)) {
		r = plain(a, a->fd, write);
		return r == -EAGAIN ? later(a, a->fd, events) : r;
	}
	if (!ready(a->fd, events))
		return later(a, a->fd, events);
	if (!fifo)
		tty = S_ISCHR(st->st_mode) && !tcgetattr(a->fd, &modes);
	/* Opening /dev/ptmx (5, 2) makes another terminal; opening any other device may mean anything. */
	if (fifo || (tty && st->st_rdev != makedev(5, 2))) {
		fd = again(a, write);
		if (fd >= 0) {
			r = plain(a, fd, write);
			close(fd);
			return r == -EAGAIN ? later(a, a->fd, events) : r;
		}
	}
	/* From here on there is a moment, after the look, in which another reader or writer may be first. */
	if (!write)
		return plain(a, a->fd, 0);
	if (fifo)
		return some(a, SMALL);
	return tty ? byte_by_byte(a) : plain(a, a->fd, 1);
}

static int64_t transfer(struct ioc_attempt *a, int write)
{
	int events = write ? POLLOUT : POLLIN;
	struct msghdr message = { .msg_iov = (struct iovec *)(uintptr_t)a->buf, .msg_iovlen = a->n };
	struct stat st;
	int64_t r = same(a, &st);

	if (r)
		return r;
	if (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)) {
		/* Linux AIO has no position. What has none itself (an endpoint) goes there all the same. */
		if (a->off < 0 && lseek(a->fd, 0, SEEK_CUR) >= 0)
			return plain(a, a->fd, write);
		return IOC_TRY_DISK;
	}
	if (S_ISSOCK(st.st_mode)) {
		r = told(write ? sendmsg(a->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) :
				 recvmsg(a->fd, &message, MSG_DONTWAIT));
		return r == -EAGAIN ? later(a, a->fd, events) : r;
	}
	r = told(syscall(write ? SYS_pwritev2 : SYS_preadv2, a->fd, vector(a), (long)a->n, -1L, -1L, NOWAIT));
	if (r == -EAGAIN)
		return later(a, a->fd, events);
	if (r != -EOPNOTSUPP && r != -ENOSYS)
		return r;
	return slow_transfer(a, write, &st);
}

/* MSG_WAITALL of a stream is all of it, in as many parts as it takes. */
static int64_t socket_bytes(struct ioc_attempt *a, int send_it)
{
	int all = a->flags & MSG_WAITALL, flags = (a->flags & ~MSG_WAITALL) | MSG_DONTWAIT, type = 0;
	socklen_t size = sizeof(type);
	struct stat st;
	int64_t r = same(a, &st);
	char *at;

	if (r) /* another file by now: what had come is told */
		return a->got ? a->got : r;
	if (all && (getsockopt(a->fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 || type != SOCK_STREAM ||
		    a->flags & MSG_PEEK))
		all = 0;
	do {
		at = (char *)(uintptr_t)a->buf + a->got;
		r = told(send_it ? send(a->fd, at, a->n - (uint64_t)a->got, flags | MSG_NOSIGNAL) :
				   recv(a->fd, at, a->n - (uint64_t)a->got, flags));
		if (r > 0 && all)
			a->got += r;
	} while (r > 0 && all && (uint64_t)a->got < a->n);
	if (r == -EAGAIN && !(a->got && a->flags & MSG_DONTWAIT))
		return later(a, a->fd, send_it ? POLLOUT : a->flags & MSG_OOB ? POLLIN | POLLPRI : POLLIN);
	return a->got ? a->got : r;
}

/* The kernel's own calls: musl's sendmsg takes at most 1,024 bytes of ancillary data. */
static int64_t message(struct ioc_attempt *a, int send_it)
{
	void *m = (void *)(uintptr_t)a->buf; /* struct ioc_msghdr */
	struct stat st;
	int64_t r = same(a, &st);

	if (r)
		return r;
	r = told(send_it ? syscall(SYS_sendmsg, a->fd, m, a->flags | MSG_DONTWAIT | MSG_NOSIGNAL) :
			   syscall(SYS_recvmsg, a->fd, m, a->flags | MSG_DONTWAIT));
	return r == -EAGAIN ? later(a, a->fd, send_it ? POLLOUT : POLLIN) : r;
}

/* accept4 has no flag for "don't wait": another acceptor of a blocking socket may be first after the look. */
static int64_t accept_one(struct ioc_attempt *a)
{
	struct stat st;
	int64_t r = same(a, &st);
	int listens = 0;
	socklen_t size = sizeof(listens);

	if (r)
		return r;
	if (blocks(a->fd) && !ready(a->fd, POLLIN)) {
		/* What accept would refuse at once must not be waited for. */
		if (getsockopt(a->fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size))
			return -errno;
		return listens ? later(a, a->fd, POLLIN) : -EINVAL;
	}
	*(socklen_t *)(uintptr_t)a->len = (socklen_t)a->n;
	r = told(accept4(a->fd, (struct sockaddr *)(uintptr_t)a->buf, (socklen_t *)(uintptr_t)a->len, SOCK_CLOEXEC));
	return r == -EAGAIN ? later(a, a->fd, POLLIN) : r;
}

/* connect has no such flag either, but waits no longer than SO_SNDTIMEO says: for the call this is a tick of
 * the kernel's clock. Nobody else sends by a socket that is not connected. */
static int64_t connect_now(struct ioc_attempt *a)
{
	struct timeval tick = { 0, 1 }, before = { 0, 0 };
	socklen_t size = sizeof(before);
	int waits = blocks(a->fd);
	int64_t r;

	if (waits && (getsockopt(a->fd, SOL_SOCKET, SO_SNDTIMEO, &before, &size) < 0 ||
		      setsockopt(a->fd, SOL_SOCKET, SO_SNDTIMEO, &tick, sizeof(tick)) < 0))
		return -errno;
	r = told(connect(a->fd, (struct sockaddr *)(uintptr_t)a->buf, (socklen_t)a->len));
	if (waits && setsockopt(a->fd, SOL_SOCKET, SO_SNDTIMEO, &before, sizeof(before)) < 0 && r >= 0)
		r = -errno;
	if (r == -EINPROGRESS || r == -EINTR || (r == -EALREADY && a->begun)) {
		a->begun = 1;
		return later(a, a->fd, POLLOUT);
	}
	if (r == -EAGAIN) /* the backlog of a Unix socket is full, and nothing says when it is not */
		return later(a, -1, 0);
	return r == -EISCONN && a->begun ? 0 : r;
}

static int64_t connect_some(struct ioc_attempt *a)
{
	struct stat st;
	int64_t r = same(a, &st);

	return r ? r : connect_now(a);
}

static int64_t *place(int64_t *off, int fd, struct stat *st)
{
	/* A pipe and a socket have no position; an offset there is -ESPIPE, as splice(2) has it. */
	return *off < 0 || fstat(fd, st) < 0 ? NULL : off;
}

static int64_t move(struct ioc_attempt *a, int copy)
{
	int64_t from = a->off2, to = a->off, r;
	struct stat st, other;
	size_t n = a->n;

	r = same(a, &st);
	if (r)
		return r;
	if (fstat(a->fd2, &other) < 0)
		return -errno;
	if (!a->known2) {
		a->dev2 = other.st_dev;
		a->ino2 = other.st_ino;
		a->known2 = 1;
	}
	if (a->dev2 != other.st_dev || a->ino2 != other.st_ino)
		return -EBADF;
	if (!ready(a->fd2, POLLIN))
		return later(a, a->fd2, POLLIN);
	if (!ready(a->fd, POLLOUT))
		return later(a, a->fd, POLLOUT);
	/* Before 6.5 SPLICE_F_NONBLOCK is for the pipe alone; what a ready socket takes at once is not much. */
	if (S_ISSOCK(st.st_mode) && n > SMALL && blocks(a->fd))
		n = SMALL;
	r = told(copy ? tee(a->fd2, a->fd, n, (unsigned)a->flags | SPLICE_F_NONBLOCK) :
			splice(a->fd2, (loff_t *)place(&from, a->fd2, &other), a->fd, (loff_t *)place(&to, a->fd, &st),
			       n, (unsigned)a->flags | SPLICE_F_NONBLOCK));
	return r == -EAGAIN ? later(a, -1, 0) : r;
}

static int64_t look(struct ioc_attempt *a)
{
	int found = ready(a->fd, a->flags);

	if (found & POLLNVAL)
		return -EBADF;
	return found ? found : later(a, a->fd, a->flags);
}

static int64_t wait_child(struct ioc_attempt *a)
{
	siginfo_t *info = (siginfo_t *)(uintptr_t)a->buf;

	info->si_pid = 0;
	if (waitid((idtype_t)a->n, (id_t)a->off, info, a->flags | WNOHANG) < 0)
		return -errno;
	return info->si_pid || a->flags & WNOHANG ? 0 : later(a, a->fd2, POLLIN);
}

static int64_t one(struct ioc_attempt *a)
{
	switch (a->kind) {
	case IOC_TRY_READ:
		return transfer(a, 0);
	case IOC_TRY_WRITE:
		return transfer(a, 1);
	case IOC_TRY_RECV:
		return socket_bytes(a, 0);
	case IOC_TRY_SEND:
		return socket_bytes(a, 1);
	case IOC_TRY_RECVMSG:
		return message(a, 0);
	case IOC_TRY_SENDMSG:
		return message(a, 1);
	case IOC_TRY_ACCEPT:
		return accept_one(a);
	case IOC_TRY_CONNECT:
		return connect_some(a);
	case IOC_TRY_SPLICE:
		return move(a, 0);
	case IOC_TRY_TEE:
		return move(a, 1);
	case IOC_TRY_POLL:
		return look(a);
	case IOC_TRY_WAITID:
		return wait_child(a);
	case IOC_TRY_CLOSE:
		return told(close(a->fd));
	default:
		return -EINVAL;
	}
}

/* Whoever asks a socket or a pipe not to wait is told that there is nothing, and nothing is waited for. */
static int impatient(const struct ioc_attempt *a)
{
	if (a->kind == IOC_TRY_SPLICE || a->kind == IOC_TRY_TEE)
		return a->flags & SPLICE_F_NONBLOCK;
	return a->kind >= IOC_TRY_RECV && a->kind <= IOC_TRY_SENDMSG && a->flags & MSG_DONTWAIT;
}

int64_t ioc_attempt(struct ioc_attempt *a)
{
	if (a->done)
		return a->res;
	a->wait_fd = -1;
	a->res = one(a);
	if (a->res == -EINTR && a->kind != IOC_TRY_CLOSE) /* the handler is to run first: at once again */
		a->res = later(a, -1, 0);
	a->done = a->res != -EAGAIN || impatient(a);
	return a->res;
}

void ioc_attempt_many(struct ioc_attempt **list, long n)
{
	long i;

	for (i = 0; i < n; i++)
		ioc_attempt(list[i]);
}

int64_t ioc_attempt_stop(struct ioc_attempt *a)
{
	struct sockaddr nobody = { .sa_family = AF_UNSPEC };
	struct stat st;

	if (a->done && a->res != IOC_TRY_DISK)
		return a->res;
	a->res = a->got ? a->got : -ECANCELED;
	if (a->kind == IOC_TRY_CONNECT && a->begun && !same(a, &st)) {
		/* It may have succeeded by now; else the attempt is taken back. */
		if (ready(a->fd, POLLOUT))
			a->res = connect_now(a);
		if (a->res == -EAGAIN)
			a->res = -ECANCELED;
		if (a->res == -ECANCELED && connect(a->fd, &nobody, sizeof(nobody)) < 0)
			a->res = -ECANCELED; /* it stays under way, as after an interrupted connect(2) */
	}
	a->done = 1;
	return a->res;
}
