"""A method's rows, made of its settings."""

import re
from collections.abc import Mapping
from typing import Any

from hydra.utils import instantiate

from palign_bench.aligner import Aligner
from palign_bench.backbone.loading.settings import resolve_model
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.report.names import BLOCKS
from palign_bench.settings import UserError, options, read_option


def make_aligners(method: Mapping[str, Any]) -> dict[str, Aligner]:
    """The method's aligner under its name, or the several that its target makes (floors).

    Raises UserError for a setting that the method refuses.
    """
    settings = {key: value for key, value in method.items() if key not in ("name", "title", "block", "quantization")}
    if not method.get("name"):
        what = f"the method of {settings['_target_']}" if "_target_" in settings else "the method"
        raise UserError(f"{what} has no name: give its YAML one of its own, name: …")
    if "_target_" not in settings:
        raise UserError(
            f"method={method['name']}: its YAML has no _target_: name the class, as in _target_: my_package.MyMethod"
        )
    if not re.fullmatch(r"\w[\w.+-]*", str(method["name"])):
        raise UserError(f"method.name={method['name']}: use letters, digits, dots, dashes and underscores.")
    writer = settings.get("writer")
    if writer is not None and writer not in ("self", "released", "template"):
        if writer not in options("model"):
            choices = ", ".join(("self", "released", "template", *options("model")))
            raise UserError(f"method.writer={writer}: choose one of {choices}.")
        settings["writer"] = resolve_model(read_option("model", writer))
    try:
        made = instantiate(settings, _convert_="all")
    except Exception as error:  # Hydra wraps whatever the constructor raised
        cause = " ".join(str(error.__cause__ or error).replace("\\n", " ").split())
        raise UserError(f"method={method['name']}: {cause}") from error
    aligners = dict(made) if isinstance(made, Mapping) else {str(method["name"]): made}
    for each in aligners.values():
        if not isinstance(each, Aligner):
            raise UserError(f"method={method['name']}: {type(each).__name__} is no palign_bench.aligner.Aligner.")
    return aligners


def title_and_block(method: Mapping[str, Any], row: str, aligner: Aligner) -> tuple[str, str]:
    """How a row of the method reads, and the block of the table in which it stands.

    ``title`` of the method's YAML is a text or, for a method of several rows, a text by row; without one a row shows
    its name. ``block`` defaults to what the aligner declares. Raises UserError for a block that no table has.
    """
    titles, block = method.get("title") or row, method.get("block") or aligner.block
    if block not in BLOCKS:
        raise UserError(f"method.block={block}: choose one of {', '.join(BLOCKS)}.")
    return str(titles.get(row, row) if isinstance(titles, Mapping) else titles), str(block)


def for_inventory(aligners: Mapping[str, Aligner], inventory: Inventory, method: str) -> dict[str, Aligner]:
    """The rows that make sense for the inventory ("always E" does not where there are four options).

    Raises UserError where none does, and for a method that cannot serve the inventory.
    """
    kept = {name: aligner for name, aligner in aligners.items() if aligner.exists_for(inventory)}
    if not kept:
        raise UserError(f"method={method}: none of its rows exists for inventory={inventory.name}.")
    for aligner in kept.values():
        aligner.check_inventory(inventory)
    return kept


def for_people(
    method: Mapping[str, Any], aligners: Mapping[str, Aligner], people: int
) -> tuple[dict[str, Aligner], list[str]]:
    """The rows that a source of so many people serves, and what is said of those that are left out."""
    kept = {name: aligner for name, aligner in aligners.items() if people > 1 or "people" not in aligner.needs}
    titles = [title_and_block(method, name, each)[0] for name, each in aligners.items() if name not in kept]
    return kept, [f"There is one person, and nobody to learn from: without {', '.join(titles)}."] if titles else []
