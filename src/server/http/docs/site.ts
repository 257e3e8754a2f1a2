/**
 * The documentation as a site under `/docs`. `docs/cli.md` is `/docs/cli`, a README is its folder,
 * and a file outside of docs/ is under `/docs/repository`. Pages are rendered when a reader first
 * asks for them. All links are relative, for proxies that serve Pinion under a path.
 */
import { posix } from "node:path";
import type { Token, Tokens } from "marked";
import { documentationFiles } from "./files.ts";
import { escapeHtml, plainOf, type Rendered, render, tokensOf } from "./markdown.ts";

const siteRoot = "/docs";
const indexFile = "docs/README.md";

type Page = { file: string; url: string; title: string; tokens: Token[] };

export type Site = {
  /** The bytes of a path, and the path with an extension that tells the type. */
  find(path: string): { name: string; bytes: Buffer } | undefined;
  /** The path under which the content of another spelling (`/docs/cli.md`, `/docs/cli/`) is. */
  findSpelling(path: string): string | undefined;
  /** The answer for an unknown path so many folders deep: the list of pages. */
  unknown(depth: number): string;
};

/** What all pages have in common. */
type Book = {
  pages: readonly Page[];
  byUrl: ReadonlyMap<string, Page>;
  byFile: ReadonlyMap<string, Page>;
  /** Files that are no pages, by their URL. */
  others: ReadonlyMap<string, Buffer>;
  navigation: ReturnType<typeof navigationOf>;
};

export function openSite(): Site {
  const book = openBook();
  const { pages, byUrl, others } = book;
  let index: Buffer | undefined;
  return {
    find(path) {
      const page = byUrl.get(path);
      if (page) {
        const rendered = contentOf(book, page);
        const html = frame(book, depthOf(path), page.title, rendered.html, { page, rendered });
        return { name: `${path}.html`, bytes: Buffer.from(html) };
      }
      if (path === `${siteRoot}/search.json`) {
        index ??= searchIndexOf(book);
        return { name: path, bytes: index };
      }
      const bytes = others.get(path);
      return bytes && { name: path, bytes };
    },
    findSpelling(path) {
      const url = path.replace(/(\/README)?\.md$/, "").replace(/\/+$/, "");
      return url !== path && byUrl.has(url) ? url : undefined;
    },
    unknown(depth) {
      const list = pages.map(
        ({ url, title }) => `<li><a href="${hrefOf(depth, url)}">${escapeHtml(title)}</a></li>`,
      );
      const main = `<h1>There is no such page</h1>\n<p>The pages of the documentation:</p>\n<ul>${list.join("\n")}</ul>\n`;
      return frame(book, depth, "No such page", main);
    },
  };
}

function openBook(): Book {
  const files = documentationFiles();
  const pages = [...files]
    .filter(([file]) => file.endsWith(".md"))
    .map(([file, bytes]) => pageOf(file, bytes));
  const byFile = new Map(pages.map((page) => [page.file, page]));
  return {
    pages,
    byFile,
    byUrl: new Map(pages.map((page) => [page.url, page])),
    others: new Map(
      [...files].filter(([file]) => !file.endsWith(".md")).map(([file, bytes]) => [urlOf(file), bytes]),
    ),
    navigation: navigationOf(byFile),
  };
}

/** The page's text, its links as the site has them. */
function contentOf({ byFile, byUrl, others }: Book, page: Page): Rendered {
  const locate = (target: string) => {
    const file = posix.join(posix.dirname(page.file), decodeURI(target)).replace(/\/$/, "");
    const url = (byFile.get(file) ?? byFile.get(`${file}/README.md`))?.url ?? urlOf(file);
    return byUrl.has(url) || others.has(url) ? hrefOf(depthOf(page.url), url) : undefined;
  };
  return render(page.tokens, {
    hrefOf: (target) => {
      if (/^([a-z]+:|#)/.test(target)) return target;
      const [path = "", anchor] = target.split("#");
      const href = locate(path);
      return href === undefined || anchor === undefined ? href : `${href}#${anchor}`;
    },
    imageOf: locate,
  });
}

type Here = { page: Page; rendered: Rendered };

/** A whole page: its head, the search, the text and the list of pages. */
function frame(book: Book, depth: number, title: string, main: string, here?: Here): string {
  const href = (url: string) => hrefOf(depth, url);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escapeHtml(title)} · Pinion</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="${href("/docs/assets/style.css")}">
<script type="module" src="${href("/docs/assets/search.js")}"></script>
</head>
<body data-site="${href(siteRoot)}">
<header>
<a class="skip" href="#content">To the text</a>
<a class="name" href="${href(siteRoot)}">Pinion documentation</a>
<form role="search" hidden>
<label for="search">Search</label>
<input id="search" type="search" autocomplete="off" spellcheck="false" placeholder="Words of a heading or a text">
</form>
<a class="to-pages" href="#pages">All pages</a>
<section id="found" aria-label="Search results" hidden><p role="status"></p><ol></ol></section>
</header>
<main id="content" tabindex="-1">
${main}</main>
<nav id="pages" aria-label="Pages">
${navigationHtml(book, href, here)}
</nav>
</body>
</html>
`;
}

/** The list of pages; the shown page has the list of its sections. */
function navigationHtml({ navigation }: Book, href: (url: string) => string, here?: Here): string {
  const entry = ({ url, title: name }: Page) => {
    if (url !== here?.page.url) return `<li><a href="${href(url)}">${escapeHtml(name)}</a></li>`;
    const parts = here.rendered.sections
      .filter((section) => section.depth === 2)
      .map(({ id, heading }) => `<li><a href="#${id}">${escapeHtml(heading)}</a></li>`);
    const inner = parts.length > 0 ? `<ul>${parts.join("")}</ul>` : "";
    return `<li><a href="${href(url)}" aria-current="page">${escapeHtml(name)}</a>${inner}</li>`;
  };
  const groups = navigation.map(
    ({ heading, pages }) => `<h2>${escapeHtml(heading)}</h2>\n<ul>${pages.map(entry).join("\n")}</ul>`,
  );
  return groups.join("\n");
}

/** The sections of all pages, as JSON for the search in the browser. */
function searchIndexOf(book: Book): Buffer {
  const entries = book.pages.map((page) => ({
    path: page.url.slice(siteRoot.length),
    title: page.title,
    sections: contentOf(book, page).sections.map(({ id, heading, text }) => [id, heading, text]),
  }));
  return Buffer.from(JSON.stringify(entries));
}

function pageOf(file: string, bytes: Buffer): Page {
  const tokens = tokensOf(bytes.toString("utf8"));
  const heading = tokens.find((token): token is Tokens.Heading => token.type === "heading");
  return { file, url: urlOf(file), title: heading ? plainOf(heading.tokens) : file, tokens };
}

function urlOf(file: string): string {
  const inside = file.startsWith("assets/")
    ? file
    : posix.relative("docs", file).replace(/^\.\.\//, "repository/");
  return posix.join(siteRoot, inside.replace(/(^|\/)README\.md$/, "").replace(/\.md$/, ""));
}

/** The number of folders above a path. */
function depthOf(path: string): number {
  return path.split("/").length - 2;
}

function hrefOf(depth: number, url: string): string {
  return "../".repeat(depth) + url.slice(1);
}

/** The sections of docs/README.md: the rows of its table, under their reader. */
function navigationOf(byFile: ReadonlyMap<string, Page>): { heading: string; pages: Page[] }[] {
  const index = byFile.get(indexFile);
  const table = index?.tokens.find((token): token is Tokens.Table => token.type === "table");
  const sections: { heading: string; pages: Page[] }[] = [];
  for (const [reader, names] of table?.rows ?? []) {
    if (reader?.text) sections.push({ heading: `You ${reader.text}`, pages: [] });
    for (const token of names?.tokens ?? []) {
      if (token.type !== "link") continue;
      const page = byFile.get(posix.join("docs", (token as Tokens.Link).href));
      if (page) sections.at(-1)?.pages.push(page);
    }
  }
  return sections;
}
