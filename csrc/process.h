/* Which process made a thing: a ring, a context or a control block is no use in a forked child
 * (its memory is not mapped there, or the kernel answers to the parent alone). */
#ifndef IOC_PROCESS_H
#define IOC_PROCESS_H
#include <stdint.h>

/* A number that this process has and no other: not its ancestors, not its children, however they
 * were forked (also by C code that Python does not see). One memory read once it is set up.
 * Never 0, but for a machine out of memory at the first call. */
uint64_t ioc_process(void);

#endif
