"""The base model: found, fingerprinted and loaded, from a folder, a hub id or the demo base that comes with Ropeway."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_schemas.errors import UserError
from data_schemas.known_hashes import known_hash
from data_schemas.params import ModelParams
from tasks.model.attention_scores import register_full_attention
from tasks.model.base_code import needs_own_code, refuse_other_class
from tasks.model.gguf_copy import kept_part, kept_weights
from tasks.model.quantised import refuse_quantised
from tasks.model.quiet import quiet_transformers
from tasks.model.supported import refuse_unsupported
from tasks.model.weight_files import INDEX, WEIGHTS, StoredTensor, refuse_other_files, refuse_pointer, stored_tensors
from tasks.model.weight_fit import refuse_partly_loaded, refuse_unfit

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

DEMO_BASE = Path(__file__).resolve().parent / "demo_base"
_DESCRIBING_SUFFIXES = {".json", ".safetensors", ".gguf", ".model", ".txt", ".jinja"}


def locate(model: ModelParams) -> str:
    """The folder of the base, or its hub id if there is no such folder. UserError for a missing folder."""
    if model.base == "demo":
        return str(DEMO_BASE)
    path = Path(model.base).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file() and not model.gguf_file:
            raise UserError(f"The base model folder {model.base} has no config.json: give a folder written by save_pretrained.")
        return str(path.resolve())
    if path.is_absolute() or model.base.startswith((".", "~")) or model.base.count("/") != 1:
        raise UserError(
            f"There is no base model folder {model.base}: give an existing folder, a hub id such as org/name, or demo."
        )
    return model.base


def base_fingerprint(model: ModelParams) -> str:
    """Digest of the base: for a folder, of its files' names and contents; for a hub id, of the resolved commit."""
    where = locate(model)
    entries: list[Any] = [model.gguf_file]
    folder = Path(where)
    if folder.is_dir():
        files = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in _DESCRIBING_SUFFIXES)
        entries += [(p.name, known_hash(p)) for p in files]
    else:
        entries += [where, hub_commit(where, model.revision)]
    if model.chat_template:
        entries.append(["chat_template", _template(model.chat_template)])
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()[:32]


@lru_cache(maxsize=16)
def hub_commit(repo: str, revision: str | None) -> str:
    """The commit that `revision` names now, from the hub, else from the local cache. UserError if neither has it."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    if revision and len(revision) == 40:
        return revision
    try:
        return str(HfApi().model_info(repo, revision=revision).sha)
    except Exception as error:
        cached = try_to_load_from_cache(repo, "config.json", revision=revision)
        if isinstance(cached, str):
            return Path(cached).parent.name  # snapshots/<commit>/config.json
        raise UserError(
            f"The base model {repo!r} is neither a folder nor reachable on the hub ({type(error).__name__}): "
            "check the name and the connection, or give a local folder."
        ) from error


@lru_cache(maxsize=16)
def hub_tensors(repo: str, commit: str) -> dict[str, StoredTensor] | None:
    """The tensors of a base on the hub by the headers of its files, which are read alone; None if that is not possible now.

    UserError if the repository has no safetensors.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache

    for name in (WEIGHTS, INDEX):
        if isinstance(cached := try_to_load_from_cache(repo, name, revision=commit), str):
            with suppress(UserError):  # a download that is not finished
                return stored_tensors(Path(cached).parent, repo)
    hub = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    try:
        if not {WEIGHTS, INDEX} & set(hub.list_repo_files(repo, revision=commit)):
            raise UserError(f"The base model {repo} on the hub has no {WEIGHTS}: choose a base with safetensors weights.")
        with quiet_transformers():
            files = hub.get_safetensors_metadata(repo, revision=commit).files_metadata
    except UserError:
        raise
    except Exception:  # offline, or a server without ranges: `load_base` finds what does not fit
        return None
    return {
        name: StoredTensor(tuple(tensor.shape), tensor.dtype, file)
        for file, metadata in files.items()
        for name, tensor in metadata.tensors.items()
    }


def _source(model: ModelParams) -> dict[str, Any]:
    where = locate(model)
    revision = (
        model.revision if Path(where).is_dir() else hub_commit(where, model.revision)
    )  # load the commit that was fingerprinted
    source: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    return source | ({"gguf_file": model.gguf_file} if model.gguf_file else {})


def _refused(model: ModelParams, part: str, error: Exception) -> UserError:
    if needs_own_code(error):
        return UserError(
            f"The {part} of base model {model.base!r} needs code that comes with it (auto_map), which Ropeway does not run: choose a base "
            "of a model type that transformers has."
        )
    detail = " ".join(str(error).split())[:300]
    return UserError(f"Cannot load the {part} of base model {model.base!r}: {detail}")


def check_weights(model: ModelParams) -> None:
    """UserError for a base whose weights are missing, damaged or not those of its config.json; reads headers only.

    A base on the hub is checked if its headers can be read there or in the local cache; `load_base` checks every base again.
    """
    folder = Path(locate(model))
    if model.gguf_file:
        if folder.is_dir():
            _check_gguf(folder / model.gguf_file, model)
        return
    tensors = (
        stored_tensors(folder, model.base)
        if folder.is_dir()
        else hub_tensors(str(folder), hub_commit(locate(model), model.revision))
    )
    if tensors is not None:
        refuse_unfit(load_config(model), tensors, model.base)


def _check_gguf(file: Path, model: ModelParams) -> None:
    if not file.is_file():
        raise UserError(f"The base model folder {model.base} has no file {model.gguf_file}: correct model.gguf_file.")
    refuse_other_files(file.parent, model.base)
    with file.open("rb") as opened:
        refuse_pointer(file.name, opened, model.base)
        if opened.read(4) != b"GGUF":
            raise UserError(f"{model.gguf_file} of base model {model.base} is not a GGUF file: download it again.")


def _check_folder(model: ModelParams) -> None:
    folder = Path(locate(model))
    if folder.is_dir():
        refuse_other_files(folder, model.base)


def load_config(model: ModelParams) -> PretrainedConfig:
    """The base's configuration. UserError if transformers cannot read it, or the model type is not supported."""
    from transformers import AutoConfig

    _check_folder(model)
    try:
        with quiet_transformers():
            config = _read_part(model, "config", AutoConfig.from_pretrained)
    except UserError:
        raise
    except Exception as error:  # broken files raise whatever their parser raises
        raise _refused(model, "configuration", error) from error
    if not model.gguf_file:
        refuse_quantised(config, model.base)
    refuse_unsupported(config)
    refuse_other_class(config, model.base)
    return config


def _read_part(model: ModelParams, part: str, from_pretrained: Callable[..., Any]) -> Any:
    """`from_pretrained` of the base; of a GGUF file in a folder from the copy that was kept when it was first read."""

    def read() -> Any:
        return from_pretrained(locate(model), **_source(model))

    if not model.gguf_file or not Path(locate(model)).is_dir():
        return read()
    return kept_part(_gguf_fingerprint(model), part, read, lambda folder: from_pretrained(folder, trust_remote_code=False))


def _gguf_fingerprint(model: ModelParams) -> str:
    return base_fingerprint(model.model_copy(update={"chat_template": None}))


def _template(path: str) -> str:
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"The file {path} of model.chat_template cannot be read ({type(error).__name__}): give a Jinja file."
        ) from error
    if not text.strip():
        raise UserError(f"The file {path} of model.chat_template is empty: give a Jinja file.")
    return text


def load_tokenizer(model: ModelParams) -> PreTrainedTokenizerFast:
    """The base's fast tokenizer, with `model.chat_template` where that is given. UserError if it has none."""
    from transformers import AutoTokenizer

    _check_folder(model)
    try:
        tokenizer: Any = _read_part(model, "tokenizer", partial(AutoTokenizer.from_pretrained, use_fast=True))
    except UserError:
        raise
    except Exception as error:  # broken files raise whatever their parser raises
        raise _refused(model, "tokenizer", error) from error
    if not tokenizer.is_fast:
        raise UserError(f"The base model {model.base!r} has no fast tokenizer, which chunking needs: choose another base.")
    if model.chat_template:
        tokenizer.chat_template = _template(model.chat_template)
    tokenizer.model_max_length = int(1e30)  # the target length differs from the base's, whose warning would mislead
    return tokenizer


def load_base(
    model: ModelParams,
    *,
    config: PretrainedConfig | None = None,
    dtype: torch.dtype | str | None = None,
    attention: str | None = None,
) -> PreTrainedModel:
    """The base's weights with its own configuration or `config`; float32 by default (`dtype` "auto": as stored).

    `attention` is a name that transformers knows; by default SDPA, and the same with caps and sinks for layers that have them.

    UserError if they do not fit, before they are read and, by transformers' own report, after.
    """
    import torch

    check_weights(model)
    wanted: torch.dtype | str = dtype or torch.float32
    computed = attention or register_full_attention()
    if not model.gguf_file:
        return _loaded(model, locate(model), {"use_safetensors": True, "config": config, **_source(model)}, wanted, computed)
    config = config or load_config(model)

    def from_file(config: PretrainedConfig, attention: str) -> PreTrainedModel:
        return _loaded(model, locate(model), {"config": config, **_source(model)}, wanted, attention)

    file = Path(locate(model)) / model.gguf_file
    if wanted == torch.float32 and file.is_file():
        kept: PreTrainedModel | None = kept_weights(
            file,
            _gguf_fingerprint(model),
            lambda: from_file(load_config(model), register_full_attention()),
            lambda folder: _loaded(model, folder, {"config": config, "use_safetensors": True}, wanted, computed),
        )
        if kept is not None:
            return kept
    return from_file(config, computed)


def _loaded(
    model: ModelParams, where: str, options: dict[str, Any], dtype: torch.dtype | str, attention: str
) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    try:
        with quiet_transformers():
            answer: Any = AutoModelForCausalLM.from_pretrained(
                where,
                dtype=dtype,
                attn_implementation=attention,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below, in one sentence
                **{name: value for name, value in options.items() if value is not None},
            )
    except UserError:
        raise
    except Exception as error:  # broken files raise whatever their parser raises
        raise _refused(model, "weights", error) from error
    loaded: PreTrainedModel = answer[0]
    # A GGUF file may hold tensors that transformers makes itself, such as RoPE frequencies.
    refuse_partly_loaded(loaded, answer[1], model.base, unexpected=not model.gguf_file)
    if model.gguf_file:
        _forget_quantiser(loaded)
    return loaded


def _forget_quantiser(loaded: Any) -> None:
    """Weights of a GGUF file are plain once they are loaded, but saving them would be refused for what they were."""
    if hasattr(loaded.config, "quantization_config"):
        del loaded.config.quantization_config
    if getattr(loaded, "hf_quantizer", None) is not None:
        loaded.hf_quantizer = None
        loaded.is_quantized = False
