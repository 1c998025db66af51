"""What an offline W&B run holds, as `wandb sync` would upload it."""

import json
import subprocess
import sys


def read(wandb_folder, name):
    """Read the one run of an id.

    Returns:
        Its `run` record, its `history` (a line a step), its `summary`, and its `files` by name.
    """
    (folder,) = wandb_folder.glob(f"wandb/offline-run-*-{name}")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    read = {"history": [], "summary": {}, "files": {}}
    for line in output.splitlines():
        record = json.loads(line)
        if record["type"] == "run":
            read["run"] = record["run"]
        elif record["type"] == "history":
            item = record["history"]["item"]
            read["history"].append({key: item[key] for key in item if key[0] != "_"})
        elif record["type"] == "summary":
            read["summary"].update(record["summary"].get("update", {}))
        elif record["type"] == "files":
            for file in record["files"]["files"]:
                read["files"][file["path"]] = (folder / "files" / file["path"]).read_bytes()
    return read
