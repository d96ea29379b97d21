"""abi_worker: the processes that run what users wrote."""
