"""The project as a whole: names across modules, what they stand for, contracts, providers."""
