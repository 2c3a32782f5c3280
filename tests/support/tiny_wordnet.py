"""A few nouns in WordNet's own format."""

from __future__ import annotations

from pathlib import Path

# id: (file, words, ids of what it is a kind of)
SYNSETS = {
    "00000001": ("06", ("clothing",), ()),
    "00000002": ("06", ("sweater", "jumper"), ("00000001",)),
    "00000003": ("06", ("Aran_sweater",), ("00000002",)),
    "00000004": ("18", ("jumper",), ()),
    "00000005": ("06", ("headdress",), ("00000001",)),
    "00000006": ("06", ("busby",), ("00000005",)),
    "00000007": ("06", ("jumper",), ("00000001",)),
}


def write_wordnet(folder: Path) -> Path:
    """The folder, with `data.noun` and `index.noun`; the athlete is the most usual jumper, the sweater comes next."""
    folder.mkdir(parents=True)
    data, senses = ["  1 a license"], dict[str, list[str]]()
    for name, (file, words, parents) in SYNSETS.items():
        pointers = "".join(f" @ {parent} n 0000" for parent in parents)
        listed = " ".join(f"{word} 0" for word in words)
        data.append(f"{name} {file} n {len(words):02x} {listed} {len(parents):03d}{pointers} | what it is  ")
        for word in words:
            senses.setdefault(word.lower(), []).append(name)
    senses["jumper"].sort(key=["00000004", "00000002", "00000007"].index)
    index = [f"{word} n {len(ids)} 1 @ {len(ids)} 0 {' '.join(ids)}  " for word, ids in senses.items()]
    (folder / "data.noun").write_text("\n".join(data) + "\n", encoding="utf-8")
    (folder / "index.noun").write_text("\n".join(["  1 a license", *index]) + "\n", encoding="utf-8")
    return folder
