/* Calls that take what is ready and never wait: the first thing that a blocking call tries. The result goes
 * to memory, in C, so that no signal handler's exception can lose bytes or an fd that have come. */
#ifndef IOC_READY_H
#define IOC_READY_H
#include <stddef.h>
#include <stdint.h>

#define IOC_ROOM 65536 /* bytes that an attempt has room for */

struct ioc_ready {
	int64_t res;   /* the result; -EAGAIN: nothing is ready, or it can't be known without waiting */
	int64_t calls; /* how many there were, each counted when its result is there */
	char room[IOC_ROOM];
};

/* Bytes go to `room` where no buffer is given. off: -1 is the file's own position. */
int64_t ioc_ready_read(struct ioc_ready *r, int fd, size_t n, int64_t off);
int64_t ioc_ready_recv(struct ioc_ready *r, int fd, size_t n, int flags);
int64_t ioc_ready_read_to(struct ioc_ready *r, int fd, void *buf, size_t n, int64_t off);
int64_t ioc_ready_recv_to(struct ioc_ready *r, int fd, void *buf, size_t n, int flags);
int64_t ioc_ready_write(struct ioc_ready *r, int fd, const void *buf, size_t n, int64_t off);
int64_t ioc_ready_send(struct ioc_ready *r, int fd, const void *buf, size_t n, int flags);
/* Of a non-blocking socket; of a blocking one never. */
int64_t ioc_ready_accept(struct ioc_ready *r, int fd);
int64_t ioc_ready_poll(struct ioc_ready *r, int fd, int events);

/* A process's file (pidfd_open, Linux 5.3), stored as by ioc_dup; 0 or a negated errno. */
int ioc_pidfd(int pid, int *to);

#endif
