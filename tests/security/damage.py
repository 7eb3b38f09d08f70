"""Ways in which a checkpoint can be damaged, by accident or on purpose.

`KINDS` names each of them. A kind of `Damage` says whether the manifest is rewritten beside
the damage, so that the folder agrees with itself, and whether the damage can be seen without
Postgres, in the files alone.
"""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.security.damaged_weights import (
    WEIGHTS,
    Edit,
    edit_header,
    edit_tensors,
    extra_tensor,
    flip_a_weight,
    long_header,
    lost_tensor,
    moved_offsets,
    no_header,
    not_finite,
    odd_entry,
    renamed_tensor,
    second_weights,
    twice_named,
    wrong_dtype,
    wrong_index,
    wrong_shape,
)

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Damage:
    edit: Edit
    rewritten: bool = False
    """The manifest is made to agree with the damaged files."""
    seen_alone: bool = True
    """Nobody needs Postgres to see it."""

    def apply(self, folder: Path, chance: Random) -> None:
        self.edit(folder, chance)
        if self.rewritten:
            rewrite_manifest(folder)


def rewrite_manifest(folder: Path) -> None:
    path = folder / MANIFEST
    files = {
        file.name: {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "size": size}
        for file in sorted(folder.iterdir())
        if file.is_file() and file.name != MANIFEST
        for size in [file.stat().st_size]
    }
    path.write_text(json.dumps({**json.loads(path.read_text()), "files": files}))


def some_file(folder: Path, chance: Random) -> Path:
    return chance.choice(sorted(path for path in folder.iterdir() if path.name != MANIFEST))


def flip(path: Path, chance: Random, first: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[chance.randrange(first, len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def flip_any(folder: Path, chance: Random) -> None:
    flip(some_file(folder, chance), chance)


def truncate(folder: Path, chance: Random) -> None:
    path = some_file(folder, chance)
    os.truncate(path, chance.randrange(path.stat().st_size))


def empty(folder: Path, chance: Random) -> None:
    os.truncate(some_file(folder, chance), 0)


def empty_weights(folder: Path, _: Random) -> None:
    os.truncate(folder / WEIGHTS, 0)


def lengthen(folder: Path, chance: Random) -> None:
    with some_file(folder, chance).open("ab") as file:
        file.write(chance.randbytes(chance.randint(1, 9)))


def swap_two(folder: Path, chance: Random) -> None:
    files = sorted(path for path in folder.iterdir() if path.name != MANIFEST)
    one, other = chance.sample(files, 2)
    one_content, other_content = one.read_bytes(), other.read_bytes()
    one.write_bytes(other_content)
    other.write_bytes(one_content)


def remove(folder: Path, chance: Random) -> None:
    some_file(folder, chance).unlink()


def add_data(folder: Path, chance: Random) -> None:
    name = chance.choice(["more.json", "vocab.txt", "b.safetensors", "x.jinja", ".hidden.json"])
    (folder / name).write_bytes(chance.randbytes(9))


def add_code(folder: Path, chance: Random) -> None:
    names = ["modeling.py", "m.bin", "m.pkl", "m.pt", "m.so", "m.pth", "m.ckpt", "m.sh", "noend"]
    (folder / chance.choice(names)).write_bytes(b"import os")


def add_folder(folder: Path, chance: Random) -> None:
    (folder / chance.choice(["more", "more.json", "x.safetensors"])).mkdir()


def outside(folder: Path) -> Path:
    return folder.parent / f".outside-{folder.name}"


def link(folder: Path, chance: Random) -> None:
    """A link to the same bytes elsewhere."""
    path = chance.choice([some_file(folder, chance), folder / MANIFEST])
    path.replace(outside(folder))
    path.symlink_to(outside(folder))


def hard_link(folder: Path, chance: Random) -> None:
    os.link(some_file(folder, chance), outside(folder))


def dangling_link(folder: Path, chance: Random) -> None:
    path = some_file(folder, chance)
    path.unlink()
    path.symlink_to(folder / "nowhere")


def pipe(folder: Path, chance: Random) -> None:
    path = chance.choice([some_file(folder, chance), folder / MANIFEST, folder / "more.json"])
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def folder_is_a_link(folder: Path, _: Random) -> None:
    shutil.move(folder, outside(folder))
    folder.symlink_to(outside(folder), target_is_directory=True)


def spoil_manifest(folder: Path, chance: Random) -> None:
    text = (folder / MANIFEST).read_text()
    broken = ["", "[]", "null", "{}", '{"files": []}', text[:-5], "[" * 100_000, "\x00", "NaN"]
    (folder / MANIFEST).write_text(chance.choice(broken))


def edit_manifest(folder: Path, chance: Random) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    files = manifest["files"]
    name = chance.choice(sorted(files))
    edits: list[dict[str, Any]] = [
        {"version": "m0"},
        {"version": None},
        {"files": {}},
        {"files": {**files, "../../etc/passwd": files[name]}},
        {"files": {**files, "/etc/passwd": files[name]}},
        {"files": {**files, name: {"size": files[name]["size"]}}},
        {"files": {**files, name: {**files[name], "sha256": files[name]["sha256"].upper()}}},
        {"files": {**files, name: None}},
    ]
    (folder / MANIFEST).write_text(json.dumps({**manifest, **chance.choice(edits)}))


def remove_manifest(folder: Path, _: Random) -> None:
    (folder / MANIFEST).unlink()


def manifest_of_another(folder: Path, _: Random) -> None:
    shutil.copy(folder.parent / "m0" / MANIFEST, folder / MANIFEST)


def another_version(folder: Path, _: Random) -> None:
    """Every file of m0, under this name."""
    for path in folder.iterdir():
        if path.name != MANIFEST:
            shutil.copy(folder.parent / "m0" / path.name, path)


def edit_json(*choices: tuple[str, dict[str, Any]]) -> Edit:
    def apply(folder: Path, chance: Random) -> None:
        name, changed = chance.choice(choices)
        path = folder / name
        found = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**found, **changed}))

    return apply


CODE = {"auto_map": {"AutoModelForCausalLM": "modeling_x.Model"}}
code_in_a_config = edit_json(
    ("config.json", CODE),
    ("tokenizer_config.json", CODE),
    ("generation_config.json", CODE),
    ("config.json", {"text_config": {"deep": [CODE]}}),
    ("processor_config.json", CODE),
    ("config.json", {"custom_pipelines": {"x": {"impl": "x.P"}}}),
    ("config.json", {"trust_remote_code": True}),
    ("adapter_config.json", {"base_model_name_or_path": "/elsewhere"}),
)
another_config = edit_json(
    ("config.json", {"rms_norm_eps": 1e-3}),
    ("config.json", {"rope_parameters": {"rope_type": "default", "rope_theta": 5.0}}),
    ("config.json", {"num_attention_heads": 4}),
    ("config.json", {"tie_word_embeddings": False}),
    ("config.json", {"hidden_act": "gelu"}),
    ("config.json", {"architectures": ["EvilForCausalLM"]}),
    ("config.json", {"architectures": ["MistralForCausalLM"]}),
    ("config.json", {"architectures": None}),
    ("config.json", {"model_type": "mistral"}),
    ("config.json", {"model_type": "evil"}),
    ("config.json", {"model_type": None}),
    ("config.json", {"quantization_config": {"quant_method": "fp8"}}),
)
another_tokenizer = edit_json(
    ("tokenizer.json", {"model": {"type": "BPE", "vocab": {"z": 0}}}),
    ("tokenizer.json", {"added_tokens": []}),
    ("tokenizer.json", {"added_tokens": [{"content": "no id"}]}),
    ("tokenizer.json", {"normalizer": {"type": "Lowercase"}}),
    ("tokenizer_config.json", {"tokenizer_class": "EvilTokenizer"}),
    ("tokenizer_config.json", {"tokenizer_class": ["a", "list"]}),
    ("tokenizer_config.json", {"eos_token": "a"}),
    ("tokenizer_config.json", {"bos_token": "b", "add_bos_token": True}),
    ("generation_config.json", {"eos_token_id": 3, "x": [1]}),
)


def another_template(folder: Path, chance: Random) -> None:
    path = folder / "chat_template.jinja"
    text = path.read_text()
    path.write_text(chance.choice([text + " ", "", "{{ messages }}", text.replace("im_", "xx_")]))


def spoil_json(folder: Path, chance: Random) -> None:
    names = ["config.json", "tokenizer_config.json", "tokenizer.json"]
    (folder / chance.choice(names)).write_text(chance.choice(["{", "", "\x00", "[" * 100_000]))


def spoil_canaries(folder: Path, chance: Random) -> None:
    texts = ["{", "[]", "{}", '{"canaries": []}', '{"canaries": [], "rounding_nats": "much"}']
    (folder / "canaries.json").write_text(chance.choice(texts))


def remove_canaries(folder: Path, _: Random) -> None:
    (folder / "canaries.json").unlink()


def remove_config(folder: Path, _: Random) -> None:
    (folder / "config.json").unlink()


def against_the_manifest(edit: Edit) -> Damage:
    return Damage(edit)


def agreeing(edit: Edit) -> Damage:
    """The manifest is rewritten, and the files still show it."""
    return Damage(edit, rewritten=True)


def unseen(edit: Edit) -> Damage:
    """The manifest is rewritten, and nothing but Postgres shows it."""
    return Damage(edit, rewritten=True, seen_alone=False)


KINDS: dict[str, Damage] = {
    "a flipped bit in the weights": against_the_manifest(flip_a_weight),
    "a flipped bit": against_the_manifest(flip_any),
    "a truncated file": against_the_manifest(truncate),
    "an emptied file": against_the_manifest(empty),
    "a lengthened file": against_the_manifest(lengthen),
    "two files swapped": against_the_manifest(swap_two),
    "a lost file": against_the_manifest(remove),
    "an added file": against_the_manifest(add_data),
    "a code file": against_the_manifest(add_code),
    "a folder": against_the_manifest(add_folder),
    "a link": against_the_manifest(link),
    "a hard link": against_the_manifest(hard_link),
    "a dangling link": against_the_manifest(dangling_link),
    "a pipe": against_the_manifest(pipe),
    "a linked folder": against_the_manifest(folder_is_a_link),
    "a broken manifest": against_the_manifest(spoil_manifest),
    "an edited manifest": against_the_manifest(edit_manifest),
    "no manifest": against_the_manifest(remove_manifest),
    "another version's manifest": against_the_manifest(manifest_of_another),
    "a flipped bit, manifest rewritten": unseen(flip_a_weight),
    "files of another version, manifest rewritten": unseen(another_version),
    "an added code file, manifest rewritten": agreeing(add_code),
    "a hard link, manifest rewritten": agreeing(hard_link),
    "emptied weights, manifest rewritten": agreeing(empty_weights),
    "a number that is none": agreeing(edit_tensors(not_finite)),
    "a wrong shape": agreeing(edit_tensors(wrong_shape)),
    "a wrong dtype": agreeing(edit_tensors(wrong_dtype)),
    "a lost tensor": agreeing(edit_tensors(lost_tensor)),
    "an extra tensor": agreeing(edit_tensors(extra_tensor)),
    "a renamed tensor": agreeing(edit_tensors(renamed_tensor)),
    "moved offsets": agreeing(edit_header(moved_offsets)),
    "an odd entry of a header": agreeing(edit_header(odd_entry)),
    "a header that is none": agreeing(edit_header(no_header)),
    "a tensor named twice": agreeing(edit_header(twice_named)),
    "a header without end": agreeing(long_header),
    "second weights": agreeing(second_weights),
    "an index of other tensors": agreeing(wrong_index),
    "code in a config": agreeing(code_in_a_config),
    "another config": agreeing(another_config),
    "no config": agreeing(remove_config),
    "another tokenizer": agreeing(another_tokenizer),
    "another template": agreeing(another_template),
    "a file that is no JSON": agreeing(spoil_json),
    "canaries that are none": agreeing(spoil_canaries),
    "no canaries": agreeing(remove_canaries),
}
