"""abid: the daemon, one a host."""
