"""The rules of ports, bursts and the DDR3 controller that both executors share."""
