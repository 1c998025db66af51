"""What is sent to a model: an instruction, then title and text between marks.

The marks are the same in every prompt, so that rules can answer instead of a model.
"""

from __future__ import annotations

from soaes.data.synthesis.settings import PromptSettings

Messages = tuple[dict[str, str], ...]

TITLE, END_TITLE = "<title>", "</title>"
TEXT, END_TEXT = "<text>\n", "\n</text>"


def messages(prompts: PromptSettings, task: str, title: str, text: str) -> Messages:
    """Return the conversation that asks for a question and answer about a text.

    Args:
        prompts: What the model is told.
        task: qa or report.
        title: Of the document.
        text: The passage, or of a report the document.
    """
    line = " ".join(title.split())
    content = (
        f"{prompts.instruction(task).strip()}\n\n{TITLE}{line}{END_TITLE}\n{TEXT}{text}{END_TEXT}"
    )
    return (
        {"role": "system", "content": prompts.system.strip()},
        {"role": "user", "content": content},
    )


def title_and_text(content: str) -> tuple[str, str]:
    """Return title and text of a message that `messages` wrote.

    Raises:
        ValueError: It holds none.
    """
    _, has_title, rest = content.partition(TITLE)
    title, has_end, rest = rest.partition(END_TITLE)
    _, has_text, text = rest.partition(TEXT)
    text, has_text_end, _ = text.rpartition(END_TEXT)
    if not (has_title and has_end and has_text and has_text_end):
        raise ValueError("the message has no title and text between marks")
    return title, text
