"""Settings for tests that ask whether an attack's parts are right, and not how much they find."""

#: Of attacks that last long by default.
SHORT = {"search": {"restarts": 2, "starts": 2, "copies": 2, "budget": 60}}
