"""The page's Markdown: what becomes of a text, whole and in pieces."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from tests.e2e.page.fake_backend import FakeBackend
from tests.e2e.page.scripts import HOSTILE, OPPORTUNITIES

pytestmark = pytest.mark.asyncio(loop_scope="session")

RENDER = """async (source) => {
    const { renderMarkdown } = await import('/assets/markdown.js');
    const box = document.createElement('div');
    box.append(...renderMarkdown(source));
    for (const bar of box.querySelectorAll('.code-bar')) bar.remove();
    for (const e of box.querySelectorAll('*')) for (const name of ['dir', 'tabindex', 'role', 'aria-label', 'title', 'rel',
        'target']) e.removeAttribute(name);
    return box.innerHTML;
}"""
STREAM = """async ([source, sizes]) => {
    const { MarkdownStream, renderMarkdown } = await import('/assets/markdown.js');
    const [streamed, whole] = [document.createElement('div'), document.createElement('div')];
    const stream = new MarkdownStream(streamed);
    let at = 0;
    for (const size of sizes) {
        stream.append(source.slice(at, at + size));
        at += size;
        stream.render();
    }
    stream.append(source.slice(at));
    stream.finish();
    whole.append(...renderMarkdown(source));
    return [streamed.innerHTML, whole.innerHTML];
}"""
SETTLED = """async ([source, size]) => {
    const { MarkdownStream, renderMarkdown } = await import('/assets/markdown.js');
    const box = document.createElement('div');
    const stream = new MarkdownStream(box);
    let added = 0;
    const observer = new MutationObserver((records) => records.forEach((r) => { added += r.addedNodes.length; }));
    observer.observe(box, { childList: true, subtree: true });
    let renders = 0;
    for (let at = 0; at < source.length; at += size) {
        stream.append(source.slice(at, at + size));
        stream.render();
        renders += 1;
        await null;
    }
    stream.finish();
    await new Promise((resolve) => setTimeout(resolve, 0));
    const whole = document.createElement('div');
    whole.append(...renderMarkdown(source));
    return [renders, added, whole.querySelectorAll('*').length, box.innerHTML === whole.innerHTML];
}"""
# How deep the first elements are nested.
DEPTH = """html => {
    let depth = 0;
    let element = new DOMParser().parseFromString(html, 'text/html').body;
    while ((element = element.firstElementChild)) depth += 1;
    return depth;
}"""

CASES = [
    ("plain", "<p>plain</p>"),
    ("two\nlines", "<p>two<br>lines</p>"),
    ("# One\n## Two ##\n####### none", "<h3>One</h3><h4>Two</h4><p>####### none</p>"),
    (
        "**b** *i* ***bi*** ~~s~~ `c`",
        "<p><strong>b</strong> <em>i</em> <em><strong>bi</strong></em> <del>s</del> <code>c</code></p>",
    ),
    ("a_b_c and __init__", "<p>a_b_c and <strong>init</strong></p>"),
    ("2 * 3 * 4, 5*6", "<p>2 * 3 * 4, 5*6</p>"),
    ("**open and *half", "<p>**open and *half</p>"),
    (r"\*no\* \[x\](y)", "<p>*no* [x](y)</p>"),
    ("`` a ` b `` and ` lone", "<p><code>a ` b</code> and ` lone</p>"),
    ("- a\n- b\n  - c\n- d", "<ul><li>a</li><li>b<ul><li>c</li></ul></li><li>d</li></ul>"),
    ("1. a\n2. b\n   more\n\n3. c", "<ol><li>a</li><li>b<br>more</li><li>c</li></ol>"),
    ("3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'),
    ("1. a\n  - b\n2. c", "<ol><li>a<ul><li>b</li></ul></li><li>c</li></ol>"),
    ("- a\n\n  para\n- b", "<ul><li>a<p>para</p></li><li>b</li></ul>"),
    (
        "- [ ] open\n- [x] done",
        '<ul><li class="task-item"><span class="task">☐ </span>open</li>'
        '<li class="task-item"><span class="task">☑ </span>done</li></ul>',
    ),
    ("text\n- a\ntext 2024. not a list", "<p>text</p><ul><li>a<br>text 2024. not a list</li></ul>"),
    ("> q\n> r\n\nafter", "<blockquote><p>q<br>r</p></blockquote><p>after</p>"),
    ("a\n\n---\n\nb", "<p>a</p><hr><p>b</p>"),
    ("```py\na < b\n```\nafter", '<div class="code"><pre><code>a &lt; b</code></pre></div><p>after</p>'),
    ("~~~\n```\n~~~", '<div class="code"><pre><code>```</code></pre></div>'),
    ("```\nnever closed", '<div class="code"><pre><code>never closed</code></pre></div>'),
    (
        "| a | b |\n| --- | --: |\n| 1 \\| 2 | `x` |\n| 3 |",
        '<div class="table-scroll"><table><thead><tr><th>a</th><th class="align-right">b</th></tr></thead><tbody>'
        '<tr><td>1 | 2</td><td class="align-right"><code>x</code></td></tr>'
        '<tr><td>3</td><td class="align-right"></td></tr></tbody></table></div>',
    ),
    ("a | b", "<p>a | b</p>"),
    ('[t](https://e.com/a_(b) "title")', '<p><a href="https://e.com/a_(b)">t</a></p>'),
    (
        "see https://e.com/x, ok (https://e.com/y).",
        '<p>see <a href="https://e.com/x">https://e.com/x</a>, ok (<a href="https://e.com/y">https://e.com/y</a>).</p>',
    ),
    (
        "<https://e.com> [m](mailto:a@e.com)",
        '<p><a href="https://e.com/">https://e.com</a> <a href="mailto:a@e.com">m</a></p>',
    ),
    ("[a](javascript:alert(1)) [b](//e.com) [c](/d) [d]", "<p><span>a</span> <span>b</span> <span>c</span> [d]</p>"),
    ("![alt](https://e.com/i.png)", '<p><a href="https://e.com/i.png">Image: alt</a></p>'),
    ("[**b** [x](https://i.com)](https://e.com)", '<p><a href="https://e.com/"><strong>b</strong> x</a></p>'),
    ("a<br>b <b>c</b> &amp;", "<p>a<br>b &lt;b&gt;c&lt;/b&gt; &amp;amp;</p>"),
    ("**Note:**text *and* **more.**", "<p>**Note:**text <em>and</em> <strong>more.</strong></p>"),
]

TEXTS = [
    OPPORTUNITIES,
    HOSTILE,
    "\n\n".join(source for source, _ in CASES),
    "\n".join(source for source, _ in CASES),
    "- a\n- b\n\n\n- c\n\n1. x\n2. y\n10. z\n\nend\n- p\n  ```\n  code\n  ```\n- q",
    "```a\n1\n```\n```b\n2\n\n```\n\n    ```\n````\n```\n````",
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scripts(chromium: Browser, served_backend: FakeBackend) -> AsyncGenerator[Page]:
    """A page that has the page's scripts at hand; one for all, as nothing here changes it."""
    page = await chromium.new_page()
    await page.goto(served_backend.url)
    yield page
    await page.close()


@pytest.mark.parametrize(("source", "html"), CASES, ids=[source[:24] for source, _ in CASES])
async def test_markdown_becomes(scripts: Page, source: str, html: str) -> None:
    assert await scripts.evaluate(RENDER, source) == html


@pytest.mark.parametrize("seed", range(12))
async def test_a_text_in_pieces_becomes_the_same_as_the_whole(scripts: Page, seed: int) -> None:
    chance = random.Random(seed)
    for source in TEXTS:
        sizes = [chance.choice((1, 2, 3, 5, 9, 40)) for _ in range(len(source))]
        streamed, whole = await scripts.evaluate(STREAM, [source, sizes])
        assert streamed == whole


@pytest.mark.parametrize(
    "source",
    [
        "\n\n".join(f"Paragraph {number} with **words**." for number in range(300)),
        "\n".join(f"{number}. item with `code`" for number in range(1, 400)),
        "```\n" + "\n".join(f"line {number}" for number in range(500)) + "\n```",
    ],
    ids=["paragraphs", "list", "code"],
)
async def test_what_is_settled_is_not_rendered_again(scripts: Page, source: str) -> None:
    renders, added, elements, same = await scripts.evaluate(SETTLED, [source, 11])
    assert same
    # A few nodes for each piece and each element, however much stands before them.
    assert added <= 8 * renders + 4 * elements


@pytest.mark.parametrize(
    "source",
    ["*a **b " * 5000, "[" * 20000, "](" * 10000, "[a](" * 5000, "`" * 3 + "a`` " * 5000, ">" * 5000, "- " * 5000, "<" * 20000,
     "|" * 20000 + "\n" + "|-" * 10000, "\\" * 20001, "_a_" * 8000, "![" * 9000, "# " + " " * 30000 + "#", "http://" * 5000],
    ids=lambda source: source[:6],
)  # fmt: skip
async def test_hostile_nesting_neither_hangs_nor_throws(scripts: Page, source: str) -> None:
    html = await scripts.evaluate(RENDER, source)
    assert html
    assert await scripts.evaluate(DEPTH, html) < 60
