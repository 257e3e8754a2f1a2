/** The documentation at /docs, read by a client without a browser and without a token. */
import { request } from "node:http";
import { expect, test } from "vitest";
import { useDatabase } from "../../../support/database.ts";
import { pages as documented, textOf } from "../../../support/docs.ts";
import { useReplica } from "../../../support/server.ts";

const replica = useReplica(useDatabase({ per: "file" }));

type IndexedPage = { path: string; title: string; sections: [id: string, heading: string, text: string][] };

async function listPages(url: string): Promise<IndexedPage[]> {
  return (await fetch(`${url}/docs/search.json`)).json() as Promise<IndexedPage[]>;
}

const linksOf = (html: string) => [...html.matchAll(/(?:href|src)="([^"]+)"/g)].map(([, target]) => target!);

test("every page is served, and every link leads to a page, a file or a heading that is there", async () => {
  const { url } = replica();
  const pages = await listPages(url);
  const served = new Map<string, string>();
  for (const { path, title } of pages) {
    const answer = await fetch(`${url}/docs${path}`, { redirect: "error" });
    expect(answer.status, path).toBe(200);
    expect(answer.headers.get("content-type")).toBe("text/html; charset=utf-8");
    expect(answer.headers.get("content-security-policy")).toContain("script-src 'self'; style-src 'self'");
    const html = await answer.text();
    // Nothing inline: what the policy forbids is not there to begin with.
    expect(html, path).not.toMatch(/<style|<[^>]*\sstyle=|<[^>]*\son\w+=|<script(?![^>]*\ssrc=)/);
    expect(html).toContain(
      `<title>${title.replaceAll("&", "&amp;").replaceAll("'", "&#39;")} · Pinion</title>`,
    );
    served.set(`/docs${path}`, html);
  }
  const broken: string[] = [];
  const files = new Set<string>();
  for (const [path, html] of served) {
    for (const target of linksOf(html)) {
      if (/^(https?|data|mailto):/.test(target)) continue;
      const { pathname, hash } = new URL(target.replaceAll("&#39;", "'"), `http://host${path}`);
      const page = served.get(pathname);
      if (!page) files.add(pathname);
      else if (hash && !page.includes(`id="${decodeURIComponent(hash.slice(1))}"`)) {
        broken.push(`${path}: ${target}`);
      }
    }
  }
  for (const path of files) {
    const answer = await fetch(url + path, { redirect: "error" });
    if (answer.status !== 200) broken.push(`${path}: ${answer.status}`);
    await answer.arrayBuffer();
  }
  expect(broken).toEqual([]);
  expect([...files]).toContain("/docs/images/run.png");
});

test("the site has each page of the repository's documentation, and the navigation its sections", async () => {
  const { url } = replica();
  const paths = new Set((await listPages(url)).map(({ path }) => path));
  const expected = documented.map((page) => {
    const inside = page.startsWith("docs/") ? page.slice("docs".length) : `/repository/${page}`;
    return inside.replace(/\/README\.md$/, "").replace(/\.md$/, "");
  });
  expect(expected.filter((path) => !paths.has(path))).toEqual([]);
  const html = await (await fetch(`${url}/docs/cli`)).text();
  const navigation = html.slice(html.indexOf("<nav"));
  for (const [, reader] of textOf("docs/README.md").matchAll(/^\| (?!you |-)([a-z][^|]*[^ |]) *\|/gm)) {
    expect(navigation).toContain(`<h2>You ${reader}</h2>`);
  }
  expect(navigation).toContain('aria-current="page"');
});

test("a heading has GitHub's name, a diagram is its source, and code is shown as it is written", async () => {
  const { url } = replica();
  const cli = await (await fetch(`${url}/docs/cli`)).text();
  expect(cli).toContain('id="the-json-of-up---once---json"');
  const lifecycles = await (await fetch(`${url}/docs/lifecycles`)).text();
  expect(lifecycles).toMatch(/<pre[^>]*class="diagram"[^>]*><code>stateDiagram/);
  const security = await (await fetch(`${url}/docs/security`)).text();
  expect(security).toContain("to &lt;the user of DATABASE_URL&gt;;");
});

test("an unknown page is a 404 with the list of pages, whose links work from there", async () => {
  const { url } = replica();
  for (const path of ["/docs/no-such-page", "/docs/decisions/no/such", "/docs/<script>"]) {
    const answer = await fetch(url + path);
    expect(answer.status).toBe(404);
    expect(answer.headers.get("content-security-policy")).toContain("default-src 'none'");
    const html = await answer.text();
    expect(html).toContain("There is no such page");
    const link = linksOf(html).find((target) => target.endsWith("docs/hooks"))!;
    expect(new URL(link, url + path).pathname).toBe("/docs/hooks");
  }
  expect(await statusOf(`${url}/docs/../docs/%2e%2e/package.json`)).toBe(404);
});

test("other spellings lead to the page, an etag saves the bytes, and only GET and HEAD are answered", async () => {
  const { url } = replica();
  for (const [spelling, page] of [
    ["/docs/", "/docs"],
    ["/docs/cli.md", "/docs/cli"],
    ["/docs/decisions/README.md", "/docs/decisions"],
  ]) {
    const answer = await fetch(url + spelling!);
    expect([answer.status, new URL(answer.url).pathname]).toEqual([200, page]);
  }
  const first = await fetch(`${url}/docs/cli`, { headers: { "accept-encoding": "br" } });
  expect(first.headers.get("content-encoding")).toBe("br");
  const etag = first.headers.get("etag")!;
  const again = await fetch(`${url}/docs/cli`, {
    headers: { "accept-encoding": "br", "if-none-match": etag },
  });
  expect(again.status).toBe(304);
  const head = await fetch(`${url}/docs/cli`, { method: "HEAD" });
  expect([head.status, await head.text()]).toEqual([200, ""]);
  expect((await fetch(`${url}/docs/cli`, { method: "POST" })).status).toBeGreaterThanOrEqual(400);
});

/** The status of a path as it is written; `fetch` would tidy the path. */
function statusOf(address: string): Promise<number> {
  const [, host, port, path] = /^http:\/\/([^:]+):(\d+)(.*)$/.exec(address)!;
  return new Promise((resolve, reject) => {
    request({ host, port, path }, (answer) => {
      answer.resume();
      resolve(answer.statusCode!);
    })
      .on("error", reject)
      .end();
  });
}
