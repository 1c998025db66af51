"""A deterministic synthetic world in Chinese, so that everything runs without a download.

Facts are drawn from a seed (`facts`) and written out as documents, dialogues, questions and exams.
The package returns records; files are written by soaes.stages.prepare.
"""
