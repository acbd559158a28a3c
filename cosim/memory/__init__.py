"""The rules of ports, bursts and the DDR controller that both executors share."""
