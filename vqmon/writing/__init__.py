"""Quality in free text: what a writing model is asked, what its answers mean, how sure it is.

Serving and training share these modules; none of them imports a model's runtime.
"""

from vqmon.writing.answers import Answer, Task, parse, phrase
from vqmon.writing.expectation import Expected, expect
from vqmon.writing.prompts import Prompts, conversation, encode, read_prompts

__all__ = [
    "Answer",
    "Expected",
    "Prompts",
    "Task",
    "conversation",
    "encode",
    "expect",
    "parse",
    "phrase",
    "read_prompts",
]
