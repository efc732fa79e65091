/* liburing, as the bindings call it: see uring.c. No policy in here. */
#ifndef IOC_URING_H
#define IOC_URING_H
#include "numbers.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <liburing.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>

#ifndef IO_URING_VERSION_MAJOR /* liburing 2.2 does not tell its version */
#define IO_URING_VERSION_MAJOR 2
#define IO_URING_VERSION_MINOR 2
#endif
#define IOC_LIBURING_MAJOR IO_URING_VERSION_MAJOR
#define IOC_LIBURING_MINOR IO_URING_VERSION_MINOR

/* Outside the kernel's range of errnos (1 to 4095). */
#define IOC_CLOSED (-5000) /* the ring is closed */
#define IOC_FORKED (-5001) /* the ring is another process's */
#define IOC_IN_USE (-5002) /* another thread is in a call of the ring's */

#define IOC_NO_SUBMIT 0xffffffffu /* for ioc_enter's n: wait and reap only */

/* What ioc_cancel_one returns beside a number. */
#define IOC_OTHERS (1 << 30)
#define IOC_CANCEL_FIRST (1 << 29)
#define IOC_TARGET_FIRST (1 << 28)

#define IOC_SIZEOF_SOCKADDR sizeof(struct sockaddr_storage)
#define IOC_SIZEOF_SIGINFO sizeof(siginfo_t)
#define IOC_SIZEOF_STATX 256 /* fixed by the kernel's ABI */
#define IOC_SIZEOF_MSGHDR sizeof(struct ioc_msghdr)
#define IOC_SIZEOF_EPOLL_EVENT sizeof(struct epoll_event)
#define IOC_SIZEOF_RECVMSG_OUT 16 /* struct io_uring_recvmsg_out: four __u32 */

/* The kernel's ABI where the installed header is older; build_ffi.py finds out. The comments give
 * the first kernel that knows the value. */
#ifndef HAVE_IORING_OP_SEND_ZC
#define IORING_OP_SEND_ZC 47 /* 6.0 */
#endif
#ifndef HAVE_IORING_OP_SENDMSG_ZC
#define IORING_OP_SENDMSG_ZC 48 /* 6.1 */
#endif
#ifndef HAVE_IORING_OP_READ_MULTISHOT
#define IORING_OP_READ_MULTISHOT 49 /* 6.7 */
#endif
#ifndef HAVE_IORING_OP_WAITID
#define IORING_OP_WAITID 50 /* 6.7 */
#endif
#ifndef HAVE_IORING_OP_FUTEX_WAIT
#define IORING_OP_FUTEX_WAIT 51 /* 6.7 */
#endif
#ifndef HAVE_IORING_OP_FUTEX_WAKE
#define IORING_OP_FUTEX_WAKE 52 /* 6.7 */
#endif
#ifndef HAVE_IORING_OP_FUTEX_WAITV
#define IORING_OP_FUTEX_WAITV 53 /* 6.7 */
#endif
#ifndef HAVE_IORING_OP_FIXED_FD_INSTALL
#define IORING_OP_FIXED_FD_INSTALL 54 /* 6.8 */
#endif
#ifndef HAVE_IORING_OP_FTRUNCATE
#define IORING_OP_FTRUNCATE 55 /* 6.9 */
#endif
#ifndef HAVE_IORING_OP_BIND
#define IORING_OP_BIND 56 /* 6.11 */
#endif
#ifndef HAVE_IORING_OP_LISTEN
#define IORING_OP_LISTEN 57 /* 6.11 */
#endif
#ifndef HAVE_IORING_OP_RECV_ZC
#define IORING_OP_RECV_ZC 58 /* 6.15 */
#endif
#ifndef HAVE_IORING_OP_EPOLL_WAIT
#define IORING_OP_EPOLL_WAIT 59 /* 6.15 */
#endif
#ifndef HAVE_IORING_OP_READV_FIXED
#define IORING_OP_READV_FIXED 60 /* 6.15 */
#endif
#ifndef HAVE_IORING_OP_WRITEV_FIXED
#define IORING_OP_WRITEV_FIXED 61 /* 6.15 */
#endif
#ifndef HAVE_IORING_OP_PIPE
#define IORING_OP_PIPE 62 /* 6.16 */
#endif
#ifndef HAVE_IORING_OP_NOP128
#define IORING_OP_NOP128 63 /* 6.19 */
#endif
#ifndef HAVE_IORING_OP_URING_CMD128
#define IORING_OP_URING_CMD128 64 /* 6.19 */
#endif
#ifndef HAVE_IORING_CQE_F_NOTIF
#define IORING_CQE_F_NOTIF 0x8 /* 6.0 */
#endif
#ifndef HAVE_IORING_CQE_F_BUF_MORE
#define IORING_CQE_F_BUF_MORE 0x10 /* 6.12 */
#endif
#ifndef HAVE_IORING_CQE_F_SKIP
#define IORING_CQE_F_SKIP 0x20 /* 6.19 */
#endif
#ifndef HAVE_IORING_CQE_F_32
#define IORING_CQE_F_32 0x8000 /* 6.18 */
#endif
#ifndef HAVE_IORING_NOTIF_USAGE_ZC_COPIED
#define IORING_NOTIF_USAGE_ZC_COPIED 0x80000000u /* 6.2 */
#endif
#ifndef HAVE_IORING_ASYNC_CANCEL_FD_FIXED
#define IORING_ASYNC_CANCEL_FD_FIXED 0x8 /* 6.0 */
#endif
#ifndef HAVE_IORING_ASYNC_CANCEL_USERDATA
#define IORING_ASYNC_CANCEL_USERDATA 0x10 /* 6.6 */
#endif
#ifndef HAVE_IORING_ASYNC_CANCEL_OP
#define IORING_ASYNC_CANCEL_OP 0x20 /* 6.6 */
#endif
#ifndef HAVE_IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER 0x1000 /* 6.0 */
#endif
#ifndef HAVE_IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN 0x2000 /* 6.1 */
#endif
#ifndef HAVE_IORING_SETUP_NO_MMAP
#define IORING_SETUP_NO_MMAP 0x4000 /* 6.5 */
#endif
#ifndef HAVE_IORING_SETUP_REGISTERED_FD_ONLY
#define IORING_SETUP_REGISTERED_FD_ONLY 0x8000 /* 6.5 */
#endif
#ifndef HAVE_IORING_SETUP_NO_SQARRAY
#define IORING_SETUP_NO_SQARRAY 0x10000 /* 6.6 */
#endif
#ifndef HAVE_IORING_SETUP_HYBRID_IOPOLL
#define IORING_SETUP_HYBRID_IOPOLL 0x20000 /* 6.13 */
#endif
#ifndef HAVE_IORING_SETUP_CQE_MIXED
#define IORING_SETUP_CQE_MIXED 0x40000 /* 6.18 */
#endif
#ifndef HAVE_IORING_SETUP_SQE_MIXED
#define IORING_SETUP_SQE_MIXED 0x80000 /* 6.19 */
#endif
#ifndef HAVE_IORING_SETUP_SQ_REWIND
#define IORING_SETUP_SQ_REWIND 0x100000 /* 7.0 */
#endif
#ifndef HAVE_IORING_FEAT_LINKED_FILE
#define IORING_FEAT_LINKED_FILE 0x1000 /* 5.17 */
#endif
#ifndef HAVE_IORING_FEAT_REG_REG_RING
#define IORING_FEAT_REG_REG_RING 0x2000 /* 6.3 */
#endif
#ifndef HAVE_IORING_FEAT_RECVSEND_BUNDLE
#define IORING_FEAT_RECVSEND_BUNDLE 0x4000 /* 6.10 */
#endif
#ifndef HAVE_IORING_FEAT_MIN_TIMEOUT
#define IORING_FEAT_MIN_TIMEOUT 0x8000 /* 6.12 */
#endif
#ifndef HAVE_IORING_FEAT_RW_ATTR
#define IORING_FEAT_RW_ATTR 0x10000 /* 6.13 */
#endif
#ifndef HAVE_IORING_FEAT_NO_IOWAIT
#define IORING_FEAT_NO_IOWAIT 0x20000 /* 6.15 */
#endif
#ifndef HAVE_IORING_TIMEOUT_MULTISHOT
#define IORING_TIMEOUT_MULTISHOT 0x40 /* 6.4 */
#endif
#ifndef HAVE_IORING_POLL_ADD_LEVEL
#define IORING_POLL_ADD_LEVEL 0x8 /* 6.0 */
#endif
#ifndef HAVE_IORING_RECV_MULTISHOT
#define IORING_RECV_MULTISHOT 0x2 /* 6.0 */
#endif
#ifndef HAVE_IORING_RECVSEND_FIXED_BUF
#define IORING_RECVSEND_FIXED_BUF 0x4 /* 6.0 */
#endif
#ifndef HAVE_IORING_SEND_ZC_REPORT_USAGE
#define IORING_SEND_ZC_REPORT_USAGE 0x8 /* 6.2 */
#endif
#ifndef HAVE_IORING_RECVSEND_BUNDLE
#define IORING_RECVSEND_BUNDLE 0x10 /* 6.10 */
#endif
#ifndef HAVE_IORING_SEND_VECTORIZED
#define IORING_SEND_VECTORIZED 0x20 /* 6.17 */
#endif
#ifndef HAVE_IORING_ACCEPT_DONTWAIT
#define IORING_ACCEPT_DONTWAIT 0x2 /* 6.10 */
#endif
#ifndef HAVE_IORING_ACCEPT_POLL_FIRST
#define IORING_ACCEPT_POLL_FIRST 0x4 /* 6.10 */
#endif
#ifndef HAVE_IORING_MSG_DATA
#define IORING_MSG_DATA 0 /* 6.0 */
#endif
#ifndef HAVE_IORING_MSG_SEND_FD
#define IORING_MSG_SEND_FD 1 /* 6.0 */
#endif
#ifndef HAVE_IORING_MSG_RING_CQE_SKIP
#define IORING_MSG_RING_CQE_SKIP 0x1 /* 6.0 */
#endif
#ifndef HAVE_IORING_MSG_RING_FLAGS_PASS
#define IORING_MSG_RING_FLAGS_PASS 0x2 /* 6.3 */
#endif
#ifndef HAVE_IORING_FIXED_FD_NO_CLOEXEC
#define IORING_FIXED_FD_NO_CLOEXEC 0x1 /* 6.8 */
#endif
#ifndef HAVE_SOCKET_URING_OP_SIOCINQ
#define SOCKET_URING_OP_SIOCINQ 0 /* 6.7 */
#endif
#ifndef HAVE_SOCKET_URING_OP_SIOCOUTQ
#define SOCKET_URING_OP_SIOCOUTQ 1 /* 6.7 */
#endif
#ifndef HAVE_SOCKET_URING_OP_GETSOCKOPT
#define SOCKET_URING_OP_GETSOCKOPT 2 /* 6.7 */
#endif
#ifndef HAVE_SOCKET_URING_OP_SETSOCKOPT
#define SOCKET_URING_OP_SETSOCKOPT 3 /* 6.7 */
#endif
#ifndef HAVE_SOCKET_URING_OP_GETSOCKNAME
#define SOCKET_URING_OP_GETSOCKNAME 5 /* 6.19 */
#endif
#ifndef HAVE_IOU_PBUF_RING_INC
#define IOU_PBUF_RING_INC 0x2 /* 6.12 */
#endif
#ifndef HAVE_IORING_REGISTER_SYNC_CANCEL
#define IORING_REGISTER_SYNC_CANCEL 24 /* 6.0 */
#endif
#ifndef HAVE_IORING_REGISTER_FILE_ALLOC_RANGE
#define IORING_REGISTER_FILE_ALLOC_RANGE 25 /* 6.0 */
#endif
#ifndef HAVE_BLOCK_URING_CMD_DISCARD
#define BLOCK_URING_CMD_DISCARD 0x1200 /* 6.12: _IO(0x12, 0) */
#endif
#ifndef HAVE_SPLICE_F_FD_IN_FIXED
#define SPLICE_F_FD_IN_FIXED (1U << 31) /* 5.7 */
#endif
#ifndef FUTEX2_SIZE_MASK
#define FUTEX2_SIZE_MASK 0x3 /* 6.7 */
#endif
#ifndef FUTEX2_SIZE_U32
#define FUTEX2_SIZE_U32 0x2 /* 6.7 */
#endif
#ifndef FUTEX2_NUMA
#define FUTEX2_NUMA 0x4 /* 6.16 */
#endif
#ifndef FUTEX2_PRIVATE
#define FUTEX2_PRIVATE 0x80 /* 6.7 */
#endif
#ifndef FUTEX_WAITV_MAX
#define FUTEX_WAITV_MAX 128 /* 5.16 */
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102 /* 6.13 */
#endif
#ifndef SO_GET_FILTER
#define SO_GET_FILTER SO_ATTACH_FILTER
#endif

struct ioc_ring {
	struct io_uring ring;
	pthread_mutex_t lock; /* the submission queue's tail, state, users */
	uint64_t process;
	unsigned features, flags, sq_entries, cq_entries;
	unsigned users;  /* threads inside a call that uses the ring's fd */
	unsigned wanted; /* how many completions the waiting thread wants */
	int state, fd, ext_arg, closing;
	pthread_t closer;
	struct ioc_out *out; /* the bindings' own, for the hot paths */
	struct ioc_numbers bare; /* requests that only their number is known of */
};
struct ioc_cqe {
	uint64_t user_data;
	int32_t res;
	uint32_t flags;
};
struct ioc_out { /* completions that were reaped; `other` are the indices of those that `reap` says */
	unsigned n, max, others, token;
	unsigned *other;
	struct ioc_cqe *cqe;
};
struct ioc_entry {
	uint8_t bytes[64];
};
struct ioc_timespec { /* struct __kernel_timespec */
	int64_t tv_sec;
	long long tv_nsec;
};
struct ioc_msghdr { /* the kernel's struct user_msghdr; that of musl has smaller fields, and gaps */
	void *msg_name;
	int msg_namelen;
	struct iovec *msg_iov;
	size_t msg_iovlen;
	void *msg_control;
	size_t msg_controllen;
	unsigned msg_flags;
};
struct ioc_open_how { /* struct open_how */
	uint64_t flags, mode, resolve;
};
struct ioc_futex_waitv { /* struct futex_waitv */
	uint64_t val, uaddr;
	uint32_t flags, reserved;
};

struct ioc_ring *ioc_ring_new(void);
void ioc_ring_free(struct ioc_ring *r);
int ioc_ring_setup(struct ioc_ring *r, unsigned entries, unsigned flags, unsigned cq_entries,
		   unsigned sq_thread_idle, int wq_fd);
int ioc_ring_closing(struct ioc_ring *r, int closing);
int ioc_ring_exit(struct ioc_ring *r);
void ioc_ring_forked(struct ioc_ring *r);
int ioc_enter(struct ioc_ring *r, const uint8_t *entries, unsigned n, unsigned wait_nr, int64_t timeout_ns,
	      struct ioc_out *out, unsigned *moved);
int ioc_bare_add(struct ioc_ring *r, const uint64_t *user_data, unsigned n);
int ioc_bare_take(struct ioc_ring *r, uint64_t user_data);
int ioc_poll_one(struct ioc_ring *r, int fd, unsigned poll_mask, uint64_t user_data);
int ioc_cancel_one(struct ioc_ring *r, uint64_t target, uint64_t user_data, unsigned how, unsigned seen);
int ioc_push_many(struct ioc_ring *r, const uint8_t *entry, unsigned n, const uint64_t *user_data,
		  const uint64_t *addr, const int32_t *fd);
int ioc_cancel_many(struct ioc_ring *r, const uint64_t *tokens, unsigned n, uint64_t mark, unsigned flags,
		    struct ioc_out *out, unsigned *sent);
int ioc_defuse(struct ioc_ring *r);
void ioc_identify(const uint8_t *entries, unsigned n, uint64_t *ids);
int ioc_wake(struct ioc_ring *r, uint64_t user_data);
int64_t ioc_sq_ready(struct ioc_ring *r);
int64_t ioc_cq_ready(struct ioc_ring *r);
int64_t ioc_came(struct ioc_ring *r);
int64_t ioc_cq_overflow(struct ioc_ring *r);
int ioc_register(struct ioc_ring *r, unsigned opcode, void *arg, unsigned nr);
int ioc_register_update(struct ioc_ring *r, unsigned opcode, unsigned offset, void *data, unsigned nr);
int ioc_register_sparse(struct ioc_ring *r, unsigned opcode, unsigned nr);
int ioc_sync_cancel(struct ioc_ring *r, uint64_t user_data, int fd, unsigned flags, unsigned opcode,
		    int64_t seconds, int64_t nanoseconds);
int ioc_probe(struct ioc_ring *r, uint8_t *supported, unsigned n);
int ioc_register_buf_ring(struct ioc_ring *r, void *memory, unsigned entries, unsigned group, unsigned flags);
int ioc_unregister_buf_ring(struct ioc_ring *r, unsigned group);
void ioc_buf_ring_add(void *memory, unsigned entries, void *base, unsigned size, unsigned first, unsigned n);
uint64_t ioc_address(void *pointer);
uint64_t ioc_epoll_data(struct epoll_event *event);
void ioc_set_epoll(struct epoll_event *event, uint32_t events, uint64_t data);

#endif
