/** The serving of the web page, tested without a browser. */
import { get } from "node:http";
import { connect, type IncomingHttpHeaders } from "node:http2";
import { brotliDecompressSync, gunzipSync } from "node:zlib";
import { expect, test } from "vitest";
import { useDatabase } from "../../support/database.ts";
import { startTestReplica } from "../../support/server.ts";

const database = useDatabase();

/** The addresses of the script, the style and the icon, as the page names them. */
/** The files that a script needs before it runs; views are loaded later. */
function importsOf(script: Buffer): string[] {
  return [...script.toString("utf8").matchAll(/(?:from|import)"\.\/([^"]+\.js)"/g)].map(([, name]) => name!);
}

async function assetsOf(url: string): Promise<string[]> {
  const html = await (await fetch(url)).text();
  return [...html.matchAll(/(?:src|href)="(assets\/[^"]+)"/g)].map(([, path]) => `/${path}`);
}

test("the page and its assets come with their types, and with a policy that lets in nothing from elsewhere", async () => {
  const { url } = await startTestReplica(database.url);
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
  const { url } = await startTestReplica(database.url);
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
  const { url } = await startTestReplica(database.url);
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
  // The size of the page is a promise to people on slow lines: at most 120 KiB of script for the
  // parts needed by every view.
  let bytes = brotli.body.length;
  const parts = new Set(importsOf(plain.body));
  for (const part of parts) {
    const path = `/assets/${part}`;
    bytes += (await get({ ":path": path, "accept-encoding": "br" })).body.length;
    for (const next of importsOf((await get({ ":path": path })).body)) parts.add(next);
  }
  expect(parts.size).toBeGreaterThan(0);
  expect(bytes).toBeLessThan(122_880);
  expect((await get({ ":path": "/healthz" })).headers[":status"]).toBe(200);
  session.close();
});

test("what is no file of the page is not answered by it", async () => {
  const { url } = await startTestReplica(database.url);
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
