"""Tokenizers of a few hundred tokens with the chat templates of the kinds that people have.

Each is built in code, without torch. `FAMILIES` names them; `family(name)` makes one.
"""

from collections.abc import Callable
from itertools import groupby
from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_2 = (
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + message['content'].strip()"
    " + ' [/INST]' }}{% else %}{{ ' ' + message['content'].strip() + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)
LLAMA_3 = (
    "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
    "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n{{ message['content'] | trim }}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}"
    "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{% set first = messages[0]['content'] + '\n\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}"
    "<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{{ first if loop.first else '' }}{{ message['content'] | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
QWEN_3 = (
    "{% for message in messages %}{% set content = message['content'] %}"
    "{% if message['role'] == 'assistant' %}"
    "{% set thought = '' %}{% if '</think>' in content %}"
    "{% set thought = content.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "<|im_start|>assistant\n"
    "{% if loop.last %}<think>\n{{ thought }}\n</think>\n\n{% endif %}{{ content }}<|im_end|>\n"
    "{% else %}<|im_start|>{{ message['role'] }}\n{{ content }}<|im_end|>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user and assistant') }}{% endif %}"
    "{% if message['role'] == 'user' %}[INST]{{ ' ' + message['content'] }}[/INST]"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
PHI_3 = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def special(*spellings: str) -> list[AddedToken]:
    return [AddedToken(spelling, special=True, normalized=False) for spelling in spellings]


def _bytes(added: list[AddedToken]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the word of the other word <| |> end user\n\n"] * 9, trainer)
    tokenizer.add_tokens(added)
    return tokenizer


def _llama_pieces(added: list[str]) -> Tokenizer:
    """As Llama 2's: control tokens in the vocabulary, bytes for the unknown, a prefix blank."""
    letters = [chr(code) for code in range(33, 127)]
    pieces = [*added, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *letters, "▁t", "he"]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=[("▁", "t"), ("h", "e")],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(special(*added))
    return tokenizer


def _unigram(added: list[str]) -> Tokenizer:
    """SentencePiece's other model: no bytes, so some texts cannot be written with it."""
    letters = [(chr(code), -6.0) for code in range(33, 127)]
    pieces = [*((spelling, 0.0) for spelling in added), ("▁", -4.0), *letters, ("▁the", -5.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer.add_special_tokens(special(*added))
    return tokenizer


def _words(added: list[str]) -> Tokenizer:
    """A vocabulary of whole words, control tokens among them."""
    words = ["<unk>", *added, "Blue", ".", "user", "assistant", "system", "5", "Score", ":", "a"]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(special(*added))
    return tokenizer


class SlowBytes(PreTrainedTokenizer):  # type: ignore[misc]
    """A tokenizer written in Python, as some models bring along: one token a byte."""

    @property
    def vocab_size(self) -> int:
        return 256

    def get_vocab(self) -> dict[str, int]:
        return {self._convert_id_to_token(n): n for n in range(256)} | self.added_tokens_encoder

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        return [self._convert_id_to_token(byte) for byte in text.encode()]

    def _convert_token_to_id(self, token: str) -> int:
        return int(token.removeprefix("byte"))

    def _convert_id_to_token(self, index: int) -> str:
        return f"byte{index}"

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        runs = groupby(tokens, key=lambda token: token in self.added_tokens_encoder)
        return "".join(
            "".join(run) if is_added else bytes(map(self._convert_token_to_id, run)).decode()
            for is_added, run in runs
        )


def _fast(tokenizer: Tokenizer, template: str | None, **named: Any) -> Any:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=template,
        clean_up_tokenization_spaces=False,
        **named,
    )


def chatml() -> Any:
    marks = special("<|im_start|>", "<|im_end|>")
    return _fast(_bytes(marks), CHATML, eos_token="<|im_end|>", pad_token="<|im_end|>")


def llama_2() -> Any:
    tokenizer = _llama_pieces(["<unk>", "<s>", "</s>"])
    return _fast(tokenizer, LLAMA_2, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def unigram() -> Any:
    tokenizer = _unigram(["<unk>", "<s>", "</s>"])
    return _fast(tokenizer, LLAMA_2, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def llama_3() -> Any:
    """Its post-processor writes the beginning too: a template that does so is not to get two."""
    marks = ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>")
    tokenizer = _bytes(special(*marks, "<|start_header_id|>", "<|end_header_id|>"))
    bos = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", bos)]
    )
    return _fast(tokenizer, LLAMA_3, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")


def gemma() -> Any:
    marks = special("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")
    runs = [AddedToken("  ", normalized=False), AddedToken("<h1>", normalized=False)]
    return _fast(_bytes(marks + runs), GEMMA, bos_token="<bos>", eos_token="<eos>")


def qwen_3() -> Any:
    marks = special("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    thinking = [AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False)]
    return _fast(_bytes(marks + thinking), QWEN_3, eos_token="<|im_end|>")


def mistral() -> Any:
    tokenizer = _llama_pieces(["<unk>", "<s>", "</s>", "[INST]", "[/INST]"])
    return _fast(tokenizer, MISTRAL, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def base_without_template() -> Any:
    return _fast(_bytes(special("<|endoftext|>")), None, eos_token="<|endoftext|>")


def qwen_base() -> Any:
    """Its end of text is not the end of a turn."""
    marks = special("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    return _fast(_bytes(marks), CHATML, eos_token="<|endoftext|>")


def not_special() -> Any:
    """ChatML as some fine-tunes add it: the turns' marks are no special tokens."""
    marks = [AddedToken("<|im_start|>"), AddedToken("<|im_end|>")]
    tokenizer = _bytes([*special("<|endoftext|>"), *marks])
    return _fast(tokenizer, CHATML, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def phi_3() -> Any:
    """Its marks take the white space behind them away."""
    marks = [
        AddedToken(f"<|{name}|>", special=True, normalized=False, rstrip=True)
        for name in ("system", "user", "assistant", "end")
    ]
    return _fast(_bytes(marks), PHI_3, eos_token="<|end|>")


def words() -> Any:
    tokenizer = _words(["<|im_start|>", "<|im_end|>"])
    return _fast(tokenizer, CHATML.replace("\n", " "), eos_token="<|im_end|>", unk_token="<unk>")


def slow() -> Any:
    tokenizer = SlowBytes(eos_token="<|im_end|>", additional_special_tokens=["<|im_start|>"])
    tokenizer.chat_template = CHATML
    return tokenizer


FAMILIES: dict[str, Callable[[], Any]] = {
    make.__name__: make
    for make in (
        chatml,
        llama_2,
        unigram,
        llama_3,
        gemma,
        qwen_3,
        mistral,
        qwen_base,
        not_special,
        phi_3,
        words,
        slow,
    )
}
"""Those with a template."""
