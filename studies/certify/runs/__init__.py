"""What programs are asked of that are lowered: a bound of each, and each in every way."""
