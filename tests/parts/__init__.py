"""The real parts that tests start: a broker, a sound server, the daemon as a process."""
