"""Which confidence CaOPD on SDPO teaches, and what a student learns of it."""
