"""From a mapping to a Program: order, tokens, addresses, bytes."""
