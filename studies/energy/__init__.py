"""Energy against meters: measured tables, the fit of the coefficients, a vendor's reports."""
