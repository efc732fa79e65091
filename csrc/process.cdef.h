uint64_t ioc_process(void);
