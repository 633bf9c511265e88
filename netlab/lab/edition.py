"""Which edition of netlab's own files a process runs: agents import late, and find what the files say by then.

Decides nothing by itself: a lab of another edition mostly works. What it is asked when something broke: was that why?
"""

import os
from pathlib import Path


def edition() -> str:
    """Where the package lies, how many modules it has, and when the last of them changed (ns). Some 300 stat()s: 1.5 ms."""
    root = str(Path(__file__).absolute().parent.parent)
    count = newest = 0
    directories = [root]
    for directory in directories:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.endswith(".py"):
                    count, newest = count + 1, max(newest, entry.stat().st_mtime_ns)
                elif entry.name != "__pycache__" and entry.is_dir():
                    directories.append(entry.path)
    return f"{root}:{count}:{newest}"
