"""A simulated model provider: a real HTTP server that speaks the OpenAI wire.

request bytes -> requests.py (checked) -> planner.py (what to answer) -> responder.py (paced bytes)
                                          |- script.py     a file of rules, for tests and load
                                          |- profile.py    load behaviour carried in the model name
                                          '- assistant/    sensible answers for a demonstration
              -> embeddings.py (hashed word vectors, for requests of that kind)
"""
