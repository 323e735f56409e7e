"""The word-level tokenizer of decoder and CLIP text tower, and the chat template."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from search.embedded.vocabulary import END, IMAGE, PAD, START, TURNS, UNKNOWN, VOCABULARY

TEXT_LENGTH = 32
"""Longest text, in tokens, that the CLIP text tower takes."""

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}
USER: {% if message['content'] is string -%}
{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] if part['type'] == 'image' -%}<image>
{% endfor -%}
{%- for part in message['content'] if part['type'] == 'text' -%}{{ part['text'] }}{%- endfor -%}
{%- endif -%}
{%- else %} ASSISTANT: {% if message['content'] is string -%}
{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] if part['type'] == 'text' -%}{{ part['text'] }}{%- endfor -%}
{%- endif -%}
{{ eos_token }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %} ASSISTANT:{% endif -%}
"""


def build_tokenizer(closed: bool) -> PreTrainedTokenizerFast:
    """Build the tokenizer of the decoder or of the CLIP text tower.

    Args:
        closed: Whether texts end in ``</s>``, as the CLIP text tower needs them; a prompt does not.

    Returns:
        A tokenizer whose texts start with ``<s>``.
    """
    identifiers = {word: index for index, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(identifiers, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )
    tokenizer.add_tokens([AddedToken(turn, normalized=False) for turn in TURNS])
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False) for token in (PAD, START, UNKNOWN, END, IMAGE)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}" if closed else f"{START} $A",
        special_tokens=[(START, identifiers[START]), (END, identifiers[END])],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        unk_token=UNKNOWN,
        model_max_length=TEXT_LENGTH if closed else 1024,
        padding_side="right" if closed else "left",
        extra_special_tokens={} if closed else {"image_token": IMAGE},
    )
    return fast
