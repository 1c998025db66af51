"""A deterministic synthetic world, told in Chinese, so that everything runs without a download.

Facts are drawn from a seed (`facts`) and told as documents, dialogues, questions and exams. The
package returns records; files are written by soaes.stages.prepare.
"""
