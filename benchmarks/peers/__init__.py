"""rqsup beside other queues, on this machine: `make bench-peers`."""
