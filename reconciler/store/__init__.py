"""What must be remembered between two runs: inventory, leases, intents. One sqlite file, one writer."""
