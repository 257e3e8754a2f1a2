/** The serving of the web page, tested without a browser. */
import { get } from "node:http";
import { connect, type IncomingHttpHeaders } from "node:http2";
import { brotliDecompressSync, gunzipSync } from "node:zlib";
import { expect, test } from "vitest";
import { useDatabase } from "../../../support/database.ts";
import { startTestReplica, useReplica } from "../../../support/server.ts";

const database = useDatabase({ per: "file" });
const replica = useReplica(database);

/** The addresses of the script, the style and the icon, as the page names them. */
type Scripts = ReadonlyMap<string, { bytes: number; needs: string[]; mayLoad: string[] }>;

/** All scripts with their compressed size; what a script needs at once, and what it loads later. */
async function scriptsFrom(url: string, entry: string): Promise<Scripts> {
  const found = new Map<string, { bytes: number; needs: string[]; mayLoad: string[] }>();
  const names = new Set([entry]);
  for (const name of names) {
    const bytes = Buffer.from(await (await fetch(`${url}/assets/${name}`)).arrayBuffer());
    const all = (pattern: RegExp) => [...bytes.toString("utf8").matchAll(pattern)].map(([, to]) => to!);
    const needs = all(/(?:from|import)"\.\/([^"]+\.js)"/g);
    const mayLoad = all(/import\("\.\/([^"]+\.js)"\)/g);
    found.set(name, { bytes: await compressedLength(`${url}/assets/${name}`), needs, mayLoad });
    for (const next of [...needs, ...mayLoad]) names.add(next);
  }
  return found;
}

/** Of a file as a browser gets it. `fetch` unpacks, and its length is that of the whole. */
function compressedLength(url: string): Promise<number> {
  return new Promise((done, fail) => {
    get(url, { headers: { "accept-encoding": "br" } }, (answer) => {
      let bytes = 0;
      expect(answer.headers["content-encoding"]).toBe("br");
      answer.on("data", (part: Buffer) => {
        bytes += part.length;
      });
      answer.on("end", () => done(bytes));
    }).on("error", fail);
  });
}

async function assetsOf(url: string): Promise<string[]> {
  const html = await (await fetch(url)).text();
  return [...html.matchAll(/(?:src|href)="(assets\/[^"]+)"/g)].map(([, path]) => `/${path}`);
}

test("the page and its assets come with their types, and with a policy that lets in nothing from elsewhere", async () => {
  const { url } = replica();
  const page = await fetch(url);
  expect(page.status).toBe(200);
  expect(page.headers.get("content-type")).toBe("text/html; charset=utf-8");
  expect(page.headers.get("content-security-policy")).toBe(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
  );
  expect(page.headers.get("x-content-type-options")).toBe("nosniff");
  expect(page.headers.get("referrer-policy")).toBe("no-referrer");
  expect(page.headers.get("cross-origin-opener-policy")).toBe("same-origin");
  expect(page.headers.get("cache-control")).toBe("no-cache");
  const html = await page.text();
  // No inline code or styles: the page contains nothing that the policy forbids.
  expect(html).not.toMatch(/<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)/);

  const assets = await assetsOf(url);
  const types = await Promise.all(
    assets.map(async (path) => {
      const asset = await fetch(url + path);
      expect(asset.headers.get("cache-control")).toBe("public, max-age=31536000, immutable");
      expect((await asset.arrayBuffer()).byteLength).toBeGreaterThan(100);
      return asset.headers.get("content-type");
    }),
  );
  expect(types.sort()).toEqual([
    "image/svg+xml",
    "text/css; charset=utf-8",
    "text/javascript; charset=utf-8",
  ]);
});

test("what a browser has it is not sent again, in each encoding", async () => {
  const { url } = replica();
  const etags = new Set<string>();
  for (const encoding of ["identity", "gzip", "br"]) {
    const first = await fetch(url, { headers: { "accept-encoding": encoding } });
    const etag = first.headers.get("etag")!;
    etags.add(etag);
    expect(first.headers.get("vary")).toBe("accept-encoding");
    const again = await fetch(url, {
      headers: { "accept-encoding": encoding, "if-none-match": `"x", W/${etag}` },
    });
    expect(again.status).toBe(304);
    expect(await again.text()).toBe("");
  }
  expect(etags.size).toBe(3);
  const head = await fetch(url, { method: "HEAD" });
  expect(head.status).toBe(200);
  expect(Number(head.headers.get("content-length"))).toBeGreaterThan(0);
  expect(await head.text()).toBe("");
});

test("over HTTP/2 it comes from the same port, compressed, and the rpcs are still there", async () => {
  const { url } = replica();
  const script = (await assetsOf(url)).find((path) => path.endsWith(".js"))!;
  const session = connect(url);
  const get = (headers: Record<string, string>) =>
    new Promise<{ headers: IncomingHttpHeaders & { ":status"?: number }; body: Buffer }>(
      (resolve, reject) => {
        const stream = session.request(headers);
        const parts: Buffer[] = [];
        let answered: IncomingHttpHeaders = {};
        stream.on("response", (found) => {
          answered = found;
        });
        stream.on("data", (part: Buffer) => parts.push(part));
        stream.on("end", () => resolve({ headers: answered, body: Buffer.concat(parts) }));
        stream.on("error", reject);
      },
    );
  const plain = await get({ ":path": script });
  const gzip = await get({ ":path": script, "accept-encoding": "gzip, br;q=0" });
  const brotli = await get({ ":path": script, "accept-encoding": "gzip, deflate, br" });
  expect([plain, gzip, brotli].map(({ headers }) => headers["content-encoding"])).toEqual([
    undefined,
    "gzip",
    "br",
  ]);
  expect(gunzipSync(gzip.body).equals(plain.body)).toBe(true);
  expect(brotliDecompressSync(brotli.body).equals(plain.body)).toBe(true);
  expect((await get({ ":path": "/healthz" })).headers[":status"]).toBe(200);
  session.close();
});

test("a first load is at most 60 KiB of script, a visit of any view at most 120 KiB, with all that the view may load", async () => {
  const { url } = replica();
  const entry = (await assetsOf(url)).find((path) => path.endsWith(".js"))!.replace("/assets/", "");
  const scripts = await scriptsFrom(url, entry);
  const closure = (from: readonly string[], isLater: boolean) => {
    const names = new Set(from);
    for (const name of names) {
      const { needs, mayLoad } = scripts.get(name)!;
      for (const next of isLater ? [...needs, ...mayLoad] : needs) names.add(next);
    }
    return names;
  };
  const bytesOf = (names: Iterable<string>) =>
    [...names].reduce((sum, name) => sum + scripts.get(name)!.bytes, 0);
  const first = closure([entry], false);
  expect(bytesOf(first)).toBeLessThan(60 * 1024);
  const views = [...first].flatMap((name) => scripts.get(name)!.mayLoad);
  expect(views.length).toBeGreaterThan(18);
  const visits = views.map(
    (view) =>
      [
        view,
        bytesOf([...first].concat([...closure([view], true)].filter((name) => !first.has(name)))),
      ] as const,
  );
  expect(visits.filter(([, bytes]) => bytes >= 120 * 1024)).toEqual([]);
  // Somebody who opens every view loads this much, once for each version.
  expect(bytesOf(scripts.keys())).toBeLessThan(156 * 1024);
});

test("what is no file of the page is not answered by it", async () => {
  const { url } = replica();
  for (const path of ["/index.html", "/assets/", "/assets/../page.ts", "/assets/%2e%2e/page.ts", "/fleet"]) {
    expect((await fetch(url + path)).status, path).toBe(404);
  }
  expect((await fetch(url, { method: "POST" })).status).toBe(404);
});

test("on loopback the page and the metrics answer to loopback's names and the public URL's, and to no other", async () => {
  const own = await startTestReplica(database.url, { PINION_PUBLIC_URL: "https://pinion.example.org" });
  const statusOf = (path: string, host: string) =>
    new Promise<number | undefined>((resolve, reject) => {
      get({ port: own.port, host: "127.0.0.1", path, headers: { host } }, (answer) => {
        answer.resume();
        resolve(answer.statusCode);
      }).on("error", reject);
    });
  for (const path of ["/", "/metrics"]) {
    for (const host of ["localhost", "127.0.0.1:7420", "[::1]", "pinion.localhost", "pinion.example.org"]) {
      expect(await statusOf(path, host), `${path} ${host}`).toBe(200);
    }
    for (const host of ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1"]) {
      expect(await statusOf(path, host), `${path} ${host}`).toBe(421);
    }
  }
  expect(await statusOf("/healthz", "10.0.0.1")).toBe(200);
  const proxied = await startTestReplica(database.url, { PINION_TRUSTED_PROXIES: "1" });
  expect((await fetch(`${proxied.url}/`)).status).toBe(200);
});
