#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "ready.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define NOWAIT 8 /* RWF_NOWAIT, Linux 4.14 */

static int64_t told(int64_t res)
{
	if (res >= 0)
		return res;
	/* Interrupted: there is nothing ready to be taken; the handler is to run. */
	return errno == EINTR ? -EAGAIN : -errno;
}

/* The result first: whoever sees the count sees the result. */
static int64_t counted(struct ioc_ready *r, int64_t res)
{
	r->res = res;
	r->calls++;
	return res;
}

/* FIFOs do not know RWF_NOWAIT (nor do pipes before 6.4). Opened once more, without blocking, they do the
 * same: the other end sees no difference while this end stays open. */
static int64_t fifo(int fd, void *buf, size_t n, int write_it)
{
	struct stat st;
	char path[40];
	int64_t res;
	int again;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISFIFO(st.st_mode))
		return -EAGAIN;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, (write_it ? O_WRONLY : O_RDONLY) | O_NONBLOCK | O_CLOEXEC);
	if (again < 0)
		return -EAGAIN;
	res = told(write_it ? write(again, buf, n) : read(again, buf, n));
	close(again);
	return res;
}

static int64_t transfer(int fd, void *buf, size_t n, int64_t off, int write_it)
{
	struct iovec v = { buf, n };
	struct stat st;
	int64_t res = told(syscall(write_it ? SYS_pwritev2 : SYS_preadv2, fd, &v, 1L, (long)off, -1L, NOWAIT));

	if (res == -EOPNOTSUPP || res == -ENOSYS)
		return off < 0 ? fifo(fd, buf, n, write_it) : -EAGAIN;
	if (res == -ESPIPE) /* an offset of what has none: the system below decides */
		return -EAGAIN;
	/* A disk's file is read whole, up to its end: what was not in the page cache is waited for. */
	if (!write_it && res > 0 && (size_t)res < n && !fstat(fd, &st) &&
	    (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)) && (off >= 0 || lseek(fd, -(off_t)res, SEEK_CUR) >= 0))
		return -EAGAIN;
	return res;
}

int64_t ioc_ready_read_to(struct ioc_ready *r, int fd, void *buf, size_t n, int64_t off)
{
	return counted(r, transfer(fd, buf, n, off, 0));
}

int64_t ioc_ready_recv_to(struct ioc_ready *r, int fd, void *buf, size_t n, int flags)
{
	return counted(r, told(recv(fd, buf, n, flags | MSG_DONTWAIT)));
}

int64_t ioc_ready_read(struct ioc_ready *r, int fd, size_t n, int64_t off)
{
	return ioc_ready_read_to(r, fd, r->room, n < IOC_ROOM ? n : IOC_ROOM, off);
}

int64_t ioc_ready_recv(struct ioc_ready *r, int fd, size_t n, int flags)
{
	return ioc_ready_recv_to(r, fd, r->room, n < IOC_ROOM ? n : IOC_ROOM, flags);
}

int64_t ioc_ready_write(struct ioc_ready *r, int fd, const void *buf, size_t n, int64_t off)
{
	return counted(r, transfer(fd, (void *)(uintptr_t)buf, n, off, 1));
}

int64_t ioc_ready_send(struct ioc_ready *r, int fd, const void *buf, size_t n, int flags)
{
	return counted(r, told(send(fd, buf, n, flags | MSG_DONTWAIT | MSG_NOSIGNAL)));
}

int64_t ioc_ready_accept(struct ioc_ready *r, int fd)
{
	int flags = fcntl(fd, F_GETFL), listens = 0;
	socklen_t size = sizeof(listens);

	/* accept4 has no flag for "don't wait": another acceptor may be first after any look. What does not
	 * listen is refused at once: a wait until it is readable would tell nothing of that. */
	if (flags >= 0 && !(flags & O_NONBLOCK) &&
	    !getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) && listens)
		return counted(r, -EAGAIN);
	return counted(r, told(accept4(fd, NULL, NULL, SOCK_CLOEXEC)));
}

int64_t ioc_ready_poll(struct ioc_ready *r, int fd, int events)
{
	struct pollfd p = { .fd = fd, .events = (short)events };
	int64_t res = told(poll(&p, 1, 0));

	if (res > 0)
		res = p.revents & POLLNVAL ? -EBADF : (unsigned short)p.revents;
	return counted(r, res ? res : -EAGAIN);
}

int ioc_pidfd(int pid, int *to)
{
#ifdef SYS_pidfd_open
	*to = (int)syscall(SYS_pidfd_open, pid, 0);
	return *to < 0 ? -errno : 0;
#else
	(void)pid;
	*to = -1;
	return -ENOSYS;
#endif
}
