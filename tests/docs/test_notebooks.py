"""The notebooks of docs/, run as a reader does, with the server's address in the place of theirs."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest
from tests.docs.blocks import ROOT, name_of
from tests.docs.conftest import Place

NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
COMMAND = str(Path(sys.executable).with_name("jupyter-execute"))  # nbclient's
RUN_S = 90


@pytest.mark.timeout(120)
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name_of)
async def test_it_runs(notebook: Path, place: Place) -> None:
    copy = place.folder / notebook.name
    copy.write_text(place.here(notebook.read_text("utf-8")))
    environment = place.environment() | {"IPYTHONDIR": str(place.folder / "ipython"), "HOME": str(place.folder)}
    process = await asyncio.create_subprocess_exec(
        *(COMMAND, "--inplace", str(copy)),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), RUN_S)
    assert process.returncode == 0, said.decode()
    cells = [cell for cell in json.loads(copy.read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in cells)
    assert cells[-1]["outputs"]
    assert place.engine.asked  # a document was asked, by its adapter
    assert "-" in place.engine.asked[0]["model"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name_of)
def test_it_lies_there_without_outputs(notebook: Path) -> None:
    cells = [cell for cell in json.loads(notebook.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [cell["id"] for cell in cells if cell["outputs"] or cell["execution_count"]] == []
