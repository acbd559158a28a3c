"""The overlay as register-transfer logic, generated with Amaranth."""
