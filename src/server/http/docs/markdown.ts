/** A page of the documentation: its Markdown as HTML, its headings, and its text by section. */
import { Marked, type Token, type Tokens } from "marked";

/** The part of a page under a heading. The first section of a page may have no heading. */
export type Section = { id: string; heading: string; depth: number; text: string };

export type Rendered = { html: string; sections: Section[] };

export type Links = {
  /** The address of a link's target; undefined leaves the link's text without a link. */
  hrefOf(target: string): string | undefined;
  /** The address of an image. */
  imageOf(target: string): string | undefined;
};

const lexer = new Marked();

export function tokensOf(markdown: string): Token[] {
  return lexer.lexer(markdown, { gfm: true });
}

export function render(tokens: Token[], links: Links): Rendered {
  const sections = sectionsOf(tokens);
  const ids = sections.filter(({ depth }) => depth > 0).map(({ id }) => id);
  let headings = 0;
  const marked = new Marked({
    renderer: {
      heading({ tokens: inner, depth }) {
        const id = ids[headings++] ?? "";
        const html = this.parser.parseInline(inner);
        // The title needs no link to itself.
        if (depth === 1) return `<h1 id="${id}">${html}</h1>\n`;
        const label = escapeHtml(`Link to “${plainOf(inner)}”`);
        return `<h${depth} id="${id}">${html} <a class="anchor" href="#${id}" aria-label="${label}">#</a></h${depth}>\n`;
      },
      link({ href, tokens: inner }) {
        const html = this.parser.parseInline(inner);
        const address = links.hrefOf(href);
        if (address === undefined) return `<span title="A file of the repository">${html}</span>`;
        return `<a href="${escapeHtml(address)}">${html}</a>`;
      },
      image({ href, text }) {
        const address = links.imageOf(href);
        if (address === undefined) return escapeHtml(text);
        return `<img src="${escapeHtml(address)}" alt="${escapeHtml(text)}" loading="lazy">`;
      },
      // A reader scrolls wide blocks with the keyboard too, therefore the tab stops.
      code({ text, lang }) {
        const language = lang?.split(/\s/)[0];
        const note =
          language === "mermaid" ? ' class="diagram" aria-label="A diagram\'s source (Mermaid)"' : "";
        return `<pre tabindex="0"${note}><code>${escapeHtml(text)}\n</code></pre>\n`;
      },
      table({ header, rows }) {
        const row = (cells: Tokens.TableCell[], tag: string) =>
          `<tr>${cells.map((cell) => `<${tag}${classOf(cell)}>${this.parser.parseInline(cell.tokens)}</${tag}>`).join("")}</tr>`;
        const body = rows.map((cells) => row(cells, "td")).join("\n");
        return `<div class="table" tabindex="0"><table><thead>${row(header, "th")}</thead><tbody>\n${body}\n</tbody></table></div>\n`;
      },
      html: ({ text }) => escapeHtml(text),
    },
  });
  return { html: marked.parser(tokens), sections };
}

function classOf({ align }: Tokens.TableCell): string {
  return align === "right" || align === "center" ? ` class="${align}"` : "";
}

function sectionsOf(tokens: Token[]): Section[] {
  const taken = new Set<string>();
  const sections: Section[] = [];
  for (const token of tokens) {
    if (token.type === "heading") {
      const heading = plainOf(token.tokens ?? []);
      sections.push({ id: idOf(heading, taken), heading, depth: (token as Tokens.Heading).depth, text: "" });
    } else {
      const section = sections.at(-1) ?? { id: "", heading: "", depth: 0, text: "" };
      if (sections.length === 0) sections.push(section);
      section.text = `${section.text} ${plainOf([token])}`.replaceAll(/\s+/g, " ").trim();
    }
  }
  return sections;
}

/** The heading's name in links, as GitHub makes it. */
function idOf(heading: string, taken: Set<string>): string {
  const slug = heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{M}\p{N}\p{Pc} -]/gu, "")
    .replaceAll(" ", "-");
  let id = slug;
  for (let again = 1; taken.has(id); again += 1) id = `${slug}-${again}`;
  taken.add(id);
  return id;
}

/** The text without its markup. */
export function plainOf(tokens: Token[]): string {
  return tokens
    .map((token) => {
      if (token.type === "list")
        return (token as Tokens.List).items.map((item) => plainOf(item.tokens)).join(" ");
      if (token.type === "table") {
        const { header, rows } = token as Tokens.Table;
        return [header, ...rows].flatMap((cells) => cells.map((cell) => plainOf(cell.tokens))).join(" ");
      }
      if ("tokens" in token && token.tokens) {
        const isBlock = token.type === "paragraph" || token.type === "blockquote" || token.type === "heading";
        return plainOf(token.tokens) + (isBlock ? " " : "");
      }
      if (token.type === "br" || token.type === "space") return " ";
      return "text" in token ? String(token.text) : "";
    })
    .join("");
}

const entities: Record<string, string> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

export function escapeHtml(text: string): string {
  return text.replaceAll(/[&<>"']/g, (character) => entities[character] ?? character);
}
