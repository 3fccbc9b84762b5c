"""What users do, for Locust: they take or wait for what is due, ask over a way in, and write down what came of it."""
