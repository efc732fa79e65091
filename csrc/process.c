#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "process.h"
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18 /* Linux 4.14 */
#endif

/* Zero in a child: the kernel wipes it at fork, so no call has to ask getpid(). A thread may read the pointer
 * while another sets it. */
static uint64_t *page;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_page(void)
{
	size_t size = (size_t)sysconf(_SC_PAGESIZE);
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return;
	if (madvise(p, size, MADV_WIPEONFORK)) {
		munmap(p, size);
		return;
	}
	__atomic_store_n(&page, p, __ATOMIC_RELEASE);
}

uint64_t ioc_process(void)
{
	uint64_t *here = __atomic_load_n(&page, __ATOMIC_ACQUIRE), token, none = 0;
	struct timespec now;

	if (here && (token = __atomic_load_n(here, __ATOMIC_ACQUIRE)))
		return token;
	pthread_once(&once, make_page);
	here = page;
	if (!here) /* no such page to be had: the process number, which a later process may get again */
		return (uint64_t)getpid();
	clock_gettime(CLOCK_MONOTONIC, &now);
	token = ((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec) << 22 | ((uint64_t)getpid() & 0x3fffff);
	if (!__atomic_compare_exchange_n(here, &none, token, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		token = none; /* another thread was first */
	return token;
}
