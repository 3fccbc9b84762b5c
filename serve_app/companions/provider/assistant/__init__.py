"""The demonstration assistant: deterministic answers and tool calls, from word overlap and JSON schemas alone.

conversation.py  what was asked, and which tool rounds are done
words.py         words, stems, stop words, verbs
spans.py         names, ids, quotes, dates, numbers in a question
matching.py      which offered tool a question means
arguments.py     a tool's arguments from its schema and the question
reply.py         the decision: a title, tool calls, results in words, or small talk
wording.py       tool results as Markdown
instructions.py  what a system prompt asks for
one_sentence.py  tool results in one sentence, where it asks for that
judge.py         verdicts on answers, for evaluations
smalltalk.py     answers without tools, and titles
"""
