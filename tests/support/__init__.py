"""What several tests build on: tiny graphs and programs, the command line, small frames."""
