"""The `abi` command. It talks to a daemon, and starts one as a process; it never imports it."""
