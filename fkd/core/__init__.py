"""What every other part stands on: errors, registries, configurations, hashes, seeds, devices."""
