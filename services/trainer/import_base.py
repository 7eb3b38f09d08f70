"""Gives a new deployment its first model, once: `python -m services.trainer.import_base`.

Publishes a base model as a checkpoint and marks it as served, so that generators can
start. Where a version is served already, nothing is done.
"""

import argparse
import asyncio

from rewardloop.config import Settings, load_settings
from rewardloop.process.exits import known_errors_told
from rewardloop.store import Store, versions
from services.trainer.child import run_child

DEFAULT_VERSION = "smollm2-135m-instruct"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--version", default=DEFAULT_VERSION, help="id to publish it under")
    parser.add_argument(
        "--source", help="folder in the transformers format; left out: SmolLM2-135M-Instruct"
    )
    parser.add_argument(
        "--chat-template",
        metavar="FILE|chatml",
        help="a chat template in Jinja, or the word chatml; left out: the model's own",
    )
    options = parser.parse_args()
    with known_errors_told():
        settings = load_settings("import_base")
        asyncio.run(import_base(settings, options.version, options.source, options.chat_template))


async def import_base(
    settings: Settings, version: str, source: str | None, chat_template: str | None = None
) -> None:
    store = Store(settings.database_url.get_secret_value())
    async with store.transaction() as session:
        if await versions.serving(session) is not None:
            return
    task = {
        "root": str(settings.checkpoint_root),
        "version": version,
        "source": source,
        "chat_template": chat_template,
    }
    async for report in run_child("services.trainer.base_model", task):
        for told in report["manifest"].get("chat_template", []):
            print(f"{version}: {told}")
        async with store.transaction() as session:
            await versions.add(
                session, version, kind="base", parent=None, manifest=report["manifest"]
            )
            await versions.set_serving(session, version)
    await store.close()


if __name__ == "__main__":
    main()
