"""A text for a paper: headings, paragraphs and lists in; Markdown, LaTeX, HTML and BibTeX out.

The text is one structure of blocks. In it, `[@key]` or `[@one;@two]` cites works of
`data/methods.bib`. Every form has the same words and lists the works that are cited, in the order
of their first citation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import escape

from brainlm_bids.report.references import CITATION, bibtex, cited_keys, reference_list, short

_ADDRESS = re.compile(r"https?://[^\s&<>\"']+[^\s&<>\"'.,;)]")
# What LaTeX reads as commands, and letters that its text fonts lack.
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "$": r"\$",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "²": r"$^2$",
    "’": "'",
}
_PREAMBLE = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage[round]{natbib}
\usepackage{url}
\begin{document}
"""


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the title of the text."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Sentences that belong together."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: tuple[str, ...]


Block = Heading | Paragraph | Bullets


@dataclass(frozen=True)
class Manuscript:
    """A text with citations.

    Attributes
    ----------
    blocks
        Its headings, paragraphs and lists.
    name
        Of its files, without extension: LaTeX finds its references in `name`.bib.
    """

    blocks: tuple[Block, ...]
    name: str = "CITATION"

    @property
    def keys(self) -> list[str]:
        """The works that it cites, in the order of their first citation."""
        return cited_keys("\n".join(_words(block) for block in self.blocks))

    def forms(self) -> dict[str, str]:
        """The text in every form, by the extension of its file."""
        return {
            ".md": self.markdown(),
            ".tex": self.latex(),
            ".html": self.html(),
            ".bib": bibtex(self.keys),
        }

    def markdown(self) -> str:
        """Markdown, with authors and years in the text and a list of references.

        Examples
        --------
        >>> print(Manuscript((Paragraph("Data were in BIDS format [@bids]."),)).markdown()[:62])
        Data were in BIDS format (Gorgolewski et al., 2016).
        <BLANKLINE>
        ## Refer
        """
        parts = [_markdown_block(block) for block in self.blocks]
        if self.keys:
            listed = (f"{n}. {text}" for n, text in enumerate(reference_list(self.keys), start=1))
            parts += ["## References", "\n".join(listed)]
        return "\n\n".join(parts) + "\n"

    def latex(self) -> str:
        r"""LaTeX with natbib's citations, a document that compiles beside its `.bib` file.

        Examples
        --------
        >>> r"FD \& DVARS \citep{power}" in Manuscript((Paragraph("FD & DVARS [@power]"),)).latex()
        True
        """
        parts = [_latex_block(block) for block in self.blocks]
        end = (
            f"\\bibliographystyle{{plainnat}}\n\\bibliography{{{self.name}}}\n" if self.keys else ""
        )
        return _PREAMBLE + "\n\n".join(parts) + f"\n\n{end}\\end{{document}}\n"

    def html(self) -> str:
        """A page by itself."""
        body = [_html_block(block, 0) for block in self.blocks]
        if self.keys:
            body += ["<h2>References</h2>", self._html_references()]
        title = next((escape(b.text) for b in self.blocks if isinstance(b, Heading)), "Methods")
        head = f'<head><meta charset="utf-8"><title>{title}</title></head>'
        return (
            f'<!doctype html>\n<html lang="en">{head}<body>\n'
            + "\n".join(body)
            + "\n</body></html>\n"
        )

    def section(self) -> str:
        """HTML for a section of another page, whose title stands there already."""
        body = [
            _html_block(block, 1)
            for block in self.blocks
            if not (isinstance(block, Heading) and block.level == 1)
        ]
        if self.keys:
            body += ["<h3>References</h3>", self._html_references()]
        return "\n".join(body)

    def _html_references(self) -> str:
        items = "".join(f"<li>{_html(text)}</li>" for text in reference_list(self.keys))
        return f"<ol>{items}</ol>"


def _words(block: Block) -> str:
    return "\n".join(block.items) if isinstance(block, Bullets) else block.text


def _with_citations(
    text: str, plain: Callable[[str], str], citation: Callable[[list[str]], str]
) -> str:
    """A text whose words and citations are written in a form."""
    ends = [(0, 0), *(match.span() for match in CITATION.finditer(text)), (len(text),) * 2]
    found = iter(CITATION.finditer(text))
    parts = []
    for (_, start), (stop, end) in pairwise(ends):
        parts.append(plain(text[start:stop]))
        if end > stop:
            parts.append(citation(cited_keys(next(found)[0])))
    return "".join(parts)


def _in_brackets(keys: Sequence[str]) -> str:
    return "(" + "; ".join(short(key) for key in keys) + ")"


def _markdown(text: str) -> str:
    return _with_citations(text, str, _in_brackets)


def _markdown_block(block: Block) -> str:
    if isinstance(block, Bullets):
        return "\n".join(f"- {_markdown(item)}" for item in block.items)
    if isinstance(block, Heading):
        return f"{'#' * block.level} {block.text}"
    return _markdown(block.text)


def _latex(text: str) -> str:
    def plain(words: str) -> str:
        parts = re.split(f"({_ADDRESS.pattern})", words)
        return "".join(
            f"\\url{{{part}}}" if n % 2 else "".join(_LATEX.get(letter, letter) for letter in part)
            for n, part in enumerate(parts)
        )

    return _with_citations(text, plain, lambda keys: f"\\citep{{{','.join(keys)}}}")


def _latex_block(block: Block) -> str:
    if isinstance(block, Bullets):
        items = "\n".join(f"\\item {_latex(item)}" for item in block.items)
        return f"\\begin{{itemize}}\n{items}\n\\end{{itemize}}"
    if isinstance(block, Heading):
        name = {1: "section", 2: "subsection"}.get(block.level, "subsubsection")
        return f"\\{name}*{{{_latex(block.text)}}}"
    return _latex(block.text)


def _html(text: str) -> str:
    def plain(words: str) -> str:
        safe = str(escape(words))
        return _ADDRESS.sub(
            lambda found: f'<a href="{found[0]}" rel="noopener">{found[0]}</a>', safe
        )

    return _with_citations(text, plain, lambda keys: str(escape(_in_brackets(keys))))


def _html_block(block: Block, deeper: int) -> str:
    """A block as HTML; deeper: by how much headings are below their own level."""
    if isinstance(block, Bullets):
        return f"<ul>{''.join(f'<li>{_html(item)}</li>' for item in block.items)}</ul>"
    if isinstance(block, Heading):
        level = block.level + deeper
        return f"<h{level}>{_html(block.text)}</h{level}>"
    return f"<p>{_html(block.text)}</p>"
