"""`inspect`, `import` and `import-ranked`: what a file holds, before and after it is stored."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rewardloop.cli import account
from rewardloop.cli.remote import client
from rewardloop.cli.terminal import Console, shown_json
from rewardloop.clients.api import Imported
from rewardloop.datasets import Format, inspection, read_prompts, read_ranked
from rewardloop.datasets.account import Account
from rewardloop.datasets.files import unit_of
from rewardloop.datasets.inspection import Inspected, Measured
from rewardloop.datasets.names import check_dataset_name
from rewardloop.embedded.home import Home
from rewardloop.errors import InvalidInput, NotFound, UpstreamUnavailable

console = Console()


async def inspect(
    home: Home,
    file: Path,
    dataset: str,
    format: Format,
    strict: bool,
    language: str,
    as_json: bool,
) -> None:
    """Show what both imports would take of the file; store nothing."""
    check_dataset_name(dataset)
    found = inspection.inspect(file, format, strict=strict, language=language)
    measured = await _measured(home, found, dataset)
    report = inspection.report(found, dataset, measured)
    if as_json:
        print(shown_json(report, indent=1, ensure_ascii=False))
    else:
        _tell([f"{file}:", *account.inspection_lines(report, unit_of(file))])


async def _measured(home: Home, found: Inspected, dataset: str) -> Measured:
    """By the stack that runs in the home; without one, in characters."""
    rows = [{"messages": item.messages, "answers": item.answers} for item in found.items]
    if not rows:
        return inspection.in_characters([])
    try:
        async with client(home) as api:
            return Measured(**await api.compare(dataset, rows))
    except (NotFound, UpstreamUnavailable) as error:
        Console(stderr=True).print(f"note: no stack was asked ({error.message})", soft_wrap=True)
        return inspection.in_characters(found.items)


async def import_file(
    home: Home, file: Path, dataset: str, format: Format, strict: bool, language: str
) -> None:
    check_dataset_name(dataset)
    read = read_prompts(file, format, strict=strict, language=language)
    if not read.prompts:
        raise InvalidInput(f"{file}: no prompt is left. {_why_none(read.account, language)}")
    async with client(home) as api:
        added = await api.add_prompts(dataset, read.prompts)
    new = account.counted(added["added"], "prompt")
    told = f"{dataset}: {new} added, {added['known']} known already"
    _tell(
        [
            f"{file}:",
            *account.account_lines(read.account.as_json(), unit_of(file)),
            "",
            told + _references(added),
            *_refused(added),
            *account.overlap_lines(added),
        ]
    )


def _why_none(account: Account, language: str) -> str:
    left_out = account.left_out
    told = ", ".join(f"{found.count} {reason}" for reason, found in left_out.items())
    is_foreign = any("language" in reason for reason in left_out)
    mend = f" --language names another language than {language!r}." if is_foreign else ""
    return f"Left out were: {told}; `rewardloop inspect` shows where.{mend}"


async def import_ranked(
    home: Home, file: Path, dataset: str, format: Format, strict: bool, language: str
) -> None:
    check_dataset_name(dataset)
    read = read_ranked(file, format, strict=strict, language=language)
    async with client(home) as api:
        added = await api.add_ranked(dataset, read.prompts)
    new = account.counted(added["added"], "ranked prompt")
    told = f"{dataset}: {new} added, {added['known']} known already"
    _tell(
        [
            f"{file}:",
            *account.account_lines(read.account.as_json(), unit_of(file)),
            "",
            told + _responses(added) + _references(added),
            *_refused(added),
            *account.overlap_lines(added),
        ]
    )


def _references(added: Imported) -> str:
    parts = []
    if added.get("references_added"):
        known = account.counted(added["references_added"], "known prompt")
        parts.append(f", {known} got a reference")
    if added.get("references_kept"):
        keep = (
            "prompt keeps the reference that it has",
            "prompts keep the reference that they have",
        )
        kept = account.counted(added["references_kept"], *keep)
        parts.append(f", {kept}; the file has another")
    return "".join(parts)


def _responses(added: Imported) -> str:
    parts = []
    if added.get("extended"):
        more = account.counted(added["responses_added"], "more response")
        parts.append(f", of which {added['extended']} got {more}")
    for reason, count in added.get("unplaced", {}).items():
        responses = account.counted(count, "response")
        parts.append(f", {responses} not added to known rankings ({reason})")
    return "".join(parts)


def _refused(added: Imported) -> list[str]:
    """What the server left out though the reader took it; counted within its request."""
    left_out: dict[str, Any] = added.get("left_out", {})
    return ["the server left out more:", *account.left_out_lines(left_out)[1:]] if left_out else []


def _tell(lines: Sequence[str]) -> None:
    for line in lines:
        # A text's line feed must not begin a line that looks like ours.
        console.print(line.replace("\n", "\\x0a").replace("\t", "\\x09"), soft_wrap=True)
