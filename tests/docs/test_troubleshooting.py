"""The page of messages quotes them by the words that the package uses."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
THEIRS = {"element 0 of tensors does not require grad"}  # PyTorch's words
QUOTED = re.findall(r"\*\*`([^`]+)`\*\*", PAGE.read_text(encoding="utf-8"))


def texts(path: Path) -> list[str]:
    """Each string of a module, with a hole where something is put in."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = [str(part.value) for part in node.values if isinstance(part, ast.Constant)]
            found.append("\N{REPLACEMENT CHARACTER}".join(parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return found


SAID = [text for path in (ROOT / "mpc_gym").rglob("*.py") for text in texts(path)]


@pytest.mark.parametrize("words", [words for words in QUOTED if words not in THEIRS])
def test_words_that_are_quoted_are_said(words: str) -> None:
    assert any(words in text for text in SAID)


def test_messages_are_quoted_at_all() -> None:
    assert len(QUOTED) > 15
