"""What every study uses: errors, files, records, the machine's name."""
