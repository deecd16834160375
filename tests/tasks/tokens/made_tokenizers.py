"""Small tokenizers of the kinds that differ at the start of a text and at its joints."""

from functools import cache

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from tests.conftest import TEXT

SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
# Llama 3's: line ends belong to the punctuation in front of them
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CORPUS = [
    TEXT,
    "# The pass key is 12345. Remember it.\n# What is the pass key?\n",
    "VAR A = 3\n",
    "Passage [1] the colour of",
] * 4


def wrapped(raw: Tokenizer, ends: str = "") -> PreTrainedTokenizerFast:
    """`ends` shows what the tokenizer adds by itself: `<s> $A` or `<s> $A </s>`."""
    if ends:
        ids = [(token, raw.token_to_id(token)) for token in ("<s>", "</s>")]
        raw.post_processor = TemplateProcessing(single=ends, special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", model_max_length=10**9)


@cache
def llama2_like() -> PreTrainedTokenizerFast:
    """BPE over whole texts with byte fallback; the normalizer puts U+2581 in front of a text and writes it for each space."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    learner.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    trained = learner.get_vocab()
    merges = [pair for pair in _merges(learner) if "\n" not in "".join(pair)]
    tokens = [*SPECIAL, *BYTES, *sorted(set("".join(trained)) - {"\n"}), *dict.fromkeys("".join(pair) for pair in merges)]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    raw = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    raw.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    raw.add_special_tokens(SPECIAL)
    return wrapped(raw, "<s> $A </s>")


@cache
def llama_class(scheme: str = "first") -> PreTrainedTokenizerFast:
    """A tokenizer as transformers' LlamaTokenizer makes it of the same pieces. Words are not split.

    With the scheme `first`, U+2581 stands in front of the whole text. With `always` (`legacy`), it stands in front of each text between
    control tokens.
    """
    raw = Tokenizer.from_str(llama2_like().backend_tokenizer.to_str())
    raw.normalizer = None
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    return wrapped(raw, "<s> $A")


@cache
def llama_legacy() -> PreTrainedTokenizerFast:
    return llama_class("always")


@cache
def unigram() -> PreTrainedTokenizerFast:
    """SentencePiece's Unigram with a space in front of the first word."""
    raw = Tokenizer(models.Unigram())
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    raw.decoder = decoders.Metaspace(prepend_scheme="first")
    alphabet = [chr(code) for code in range(32, 127)] + ["\n", "\u2581"]
    raw.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(
            vocab_size=400, special_tokens=SPECIAL, unk_token="<unk>", initial_alphabet=alphabet, show_progress=False
        ),
    )
    return wrapped(raw, "<s> $A")


@cache
def llama3_like() -> PreTrainedTokenizerFast:
    """Byte-level BPE whose words take the line ends behind punctuation with them."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    raw.train_from_iterator([*CORPUS, 'a.\n\nb "x",\n "y"\n'] * 2, trainer)
    return wrapped(raw, "<s> $A")


@cache
def bytes_only() -> PreTrainedTokenizerFast:
    """Each byte is a token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE({token: i for i, token in enumerate([*SPECIAL, *alphabet])}, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(SPECIAL)
    return wrapped(raw)


def _merges(trained: Tokenizer) -> list[tuple[str, str]]:
    import json

    found = json.loads(trained.to_str())["model"]["merges"]
    return [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in found]


KINDS = {
    "llama2": llama2_like,
    "llama-class": llama_class,
    "llama-legacy": llama_legacy,
    "unigram": unigram,
    "llama3": llama3_like,
    "bytes": bytes_only,
}

# ChatML, whose tags mark the answers for transformers' own mask; without the tags it renders the same.
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}{% else %}{{ m.content + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def chatting(kind: str = "llama3", template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """A tokenizer of this kind with ChatML's control tokens and a chat template."""
    made = KINDS[kind]()
    copy = Tokenizer.from_str(made.backend_tokenizer.to_str())
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=copy, bos_token="<s>", eos_token="</s>", model_max_length=10**9)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = template
    return tokenizer
