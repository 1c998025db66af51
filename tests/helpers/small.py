"""Overrides of a small world and small models, for tests that build stages."""

# Overrides of a world that is written and packed in seconds.
SMALL_WORLD = [
    "world.entities=12",
    "world.enterprises=8",
    "world.questions=100",
    "world.exam_questions=20",
    "world.dialogues=40",
    "world.short_questions=40",
    "world.docs_per_entity=4",
    "world.mcq_per_fact=2",
]

# Overrides of a target that trains in seconds, and of a draft too.
SMALL_TARGET = [
    "target.origin.base.layers=1",
    "target.origin.base.width=64",
    "target.origin.base.heads=2",
]
SMALL_MODELS = [
    *SMALL_TARGET,
    "draft.origin.base.width=32",
    "draft.origin.base.heads=1",
]
