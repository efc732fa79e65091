/* Registrations: liburing's own calls for them differ from 2.2 to 2.15, the system call's ABI does not. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "uring.h"
#include <string.h>

int ioc_register_update(struct ioc_ring *r, unsigned opcode, unsigned offset, void *data, unsigned nr)
{
	struct {
		uint32_t offset, resv;
		uint64_t data;
	} update = { offset, 0, (uint64_t)(uintptr_t)data };
	struct {
		uint32_t offset, resv;
		uint64_t data, tags;
		uint32_t nr, resv2;
	} update2 = { offset, 0, (uint64_t)(uintptr_t)data, 0, nr, 0 };

	if (opcode == IORING_REGISTER_FILES_UPDATE)
		return ioc_register(r, opcode, &update, nr);
	return ioc_register(r, opcode, &update2, sizeof(update2));
}

int ioc_register_sparse(struct ioc_ring *r, unsigned opcode, unsigned nr)
{
	struct {
		uint32_t nr, flags;
		uint64_t resv2, data, tags;
	} reg = { nr, IORING_RSRC_REGISTER_SPARSE, 0, 0, 0 };

	return ioc_register(r, opcode, &reg, sizeof(reg));
}

/* The kernel's ABI, not the header's struct: liburing 2.3's has no opcode, which came with 6.6. */
int ioc_sync_cancel(struct ioc_ring *r, uint64_t user_data, int fd, unsigned flags, unsigned opcode,
		    int64_t seconds, int64_t nanoseconds)
{
	struct {
		uint64_t addr;
		int32_t fd;
		uint32_t flags;
		struct ioc_timespec timeout;
		uint8_t opcode, pad[7];
		uint64_t pad2[3];
	} reg;

	_Static_assert(sizeof(reg) == 64, "struct io_uring_sync_cancel_reg");
	memset(&reg, 0, sizeof(reg));
	reg.addr = user_data;
	reg.fd = fd;
	reg.flags = flags;
	reg.timeout.tv_sec = seconds;
	reg.timeout.tv_nsec = nanoseconds;
	reg.opcode = (uint8_t)opcode;
	return ioc_register(r, IORING_REGISTER_SYNC_CANCEL, &reg, 1);
}

/* Sets supported[op] to 1 for each opcode below n that the kernel has; returns the number of opcodes. */
int ioc_probe(struct ioc_ring *r, uint8_t *supported, unsigned n)
{
	union {
		struct io_uring_probe probe;
		uint8_t room[sizeof(struct io_uring_probe) + 256 * sizeof(struct io_uring_probe_op)];
	} u;
	int res;

	memset(&u, 0, sizeof(u));
	res = ioc_register(r, IORING_REGISTER_PROBE, &u, 256);
	if (res < 0)
		return res;
	for (unsigned i = 0; i < n; i++)
		supported[i] = i <= u.probe.last_op && u.probe.ops[i].flags & IO_URING_OP_SUPPORTED;
	return u.probe.last_op + 1;
}

int ioc_register_buf_ring(struct ioc_ring *r, void *memory, unsigned entries, unsigned group, unsigned flags)
{
	struct {
		uint64_t ring_addr;
		uint32_t ring_entries;
		uint16_t bgid, flags;
		uint64_t resv[3];
	} reg = { (uint64_t)(uintptr_t)memory, entries, (uint16_t)group, (uint16_t)flags, { 0, 0, 0 } };

	io_uring_buf_ring_init(memory);
	return ioc_register(r, IORING_REGISTER_PBUF_RING, &reg, 1);
}

int ioc_unregister_buf_ring(struct ioc_ring *r, unsigned group)
{
	struct {
		uint64_t ring_addr;
		uint32_t ring_entries;
		uint16_t bgid, flags;
		uint64_t resv[3];
	} reg = { 0, 0, (uint16_t)group, 0, { 0, 0, 0 } };

	return ioc_register(r, IORING_UNREGISTER_PBUF_RING, &reg, 1);
}

/* Hands n buffers of `size` bytes, numbered from `first` and one behind the other from `base` on, to
 * the kernel. */
void ioc_buf_ring_add(void *memory, unsigned entries, void *base, unsigned size, unsigned first, unsigned n)
{
	static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER; /* the GIL is not held here */
	struct io_uring_buf_ring *br = memory;

	pthread_mutex_lock(&one_at_a_time);
	for (unsigned i = 0; i < n; i++)
		io_uring_buf_ring_add(br, (char *)base + (size_t)i * size, size, (unsigned short)(first + i),
				      io_uring_buf_ring_mask(entries), (int)i);
	io_uring_buf_ring_advance(br, (int)n);
	pthread_mutex_unlock(&one_at_a_time);
}

uint64_t ioc_address(void *pointer)
{
	return (uint64_t)(uintptr_t)pointer;
}

uint64_t ioc_epoll_data(struct epoll_event *event)
{
	return event->data.u64;
}

void ioc_set_epoll(struct epoll_event *event, uint32_t events, uint64_t data)
{
	event->events = events;
	event->data.u64 = data;
}
