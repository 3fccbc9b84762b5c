"""The example data set: questions about the example CRM and HR data, and what is expected of the answers.

asking.py     the questions, with what the databases say about them
recording.py  the conversations as they were held: with the simulated assistant, and the real tools
__main__.py   writes configs/eval/crm_hr.jsonl: python -m serve_app.evaluation.example
"""
