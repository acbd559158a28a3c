"""What-if, compare, explain: why a design takes the time it takes."""
