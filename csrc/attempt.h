/* Calls that never wait: what the libaio engine makes of a request when its file is ready. The result goes
 * to memory, in C, so that no signal handler's exception can lose bytes or an fd that have come. */
#ifndef IOC_ATTEMPT_H
#define IOC_ATTEMPT_H
#include <stdint.h>

enum {
	IOC_TRY_READ,
	IOC_TRY_WRITE,
	IOC_TRY_RECV,
	IOC_TRY_SEND,
	IOC_TRY_RECVMSG,
	IOC_TRY_SENDMSG,
	IOC_TRY_ACCEPT,
	IOC_TRY_CONNECT,
	IOC_TRY_SPLICE,
	IOC_TRY_TEE,
	IOC_TRY_POLL,
	IOC_TRY_WAITID,
	IOC_TRY_CLOSE
};

/* The answer for a file that Linux AIO itself reads and writes. */
#define IOC_TRY_DISK (-4098)

struct ioc_attempt {
	int kind; /* IOC_TRY_ */
	int fd;
	int fd2; /* where a splice takes from */
	int flags; /* of the call; a poll's events */
	int done; /* res is the result, and no call will be made any more */
	int begun; /* a connect is under way */
	int wait_fd; /* behind -EAGAIN: what to poll, -1 for "try again a little later" */
	int wait_events;
	int64_t res;
	int64_t got; /* of a MSG_WAITALL, so far */
	uint64_t buf; /* the buffer, iovecs, msghdr, sockaddr or siginfo */
	uint64_t n; /* its length; a wait's idtype */
	uint64_t len; /* an address's length: where it is (accept), or itself (connect) */
	int64_t off, off2; /* -1: the file's own position; off: of fd, a wait's id; off2: of fd2 */
	uint64_t dev, ino; /* which file the number was when this began */
	uint64_t dev2, ino2; /* and which one fd2 was */
	int known; /* and that dev and ino are set */
	int known2;
};

/* A result, IOC_TRY_DISK, or -EAGAIN: wait_fd says what to wait for. Once done it returns the same again. */
int64_t ioc_attempt(struct ioc_attempt *a);
/* ioc_attempt of each. */
void ioc_attempt_many(struct ioc_attempt **list, long n);
/* Ends what is to be cancelled: -ECANCELED, or what had happened before. */
int64_t ioc_attempt_stop(struct ioc_attempt *a);

#endif
