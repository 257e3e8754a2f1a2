/**
 * The web page: a few files beside the module, built from web/ (`npm run build:page`), read at the
 * start and served from memory. The page uses the same rpcs as every other client.
 */
import { createHash } from "node:crypto";
import type { ServerResponse } from "node:http";
import { extname } from "node:path";
import { promisify } from "node:util";
import { brotliCompress, gzip, constants as zlib } from "node:zlib";
import { pageFiles } from "./page-files.ts";
import { authorityOf } from "./port/authority.ts";
import { type HostCheck, refuseHost } from "./port/own-host.ts";
import type { Handler } from "./port/requests.ts";

type Encoding = "br" | "gzip" | "identity";

/** A file in the encodings that browsers accept. */
export type PageFile = {
  type: string;
  etag: string;
  isImmutable: boolean;
  /**
   * The file's bytes in an encoding. The first reader's request compresses the file, on another
   * thread.
   */
  body(encoding: Encoding): Promise<Buffer>;
};

/** By request path. */
export type Page = ReadonlyMap<string, PageFile>;

const types: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
  ".txt": "text/plain; charset=utf-8",
  ".toml": "text/plain; charset=utf-8",
  ".json": "application/json",
  ".png": "image/png",
};

/**
 * No content from other hosts, no inline code, no frames: markup injected into a name or an output
 * stays text.
 */
const contentSecurityPolicy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "img-src 'self' data:",
  "frame-ancestors 'none'",
  "base-uri 'none'",
  "form-action 'none'",
].join("; ");

const securityHeaders = {
  "content-security-policy": contentSecurityPolicy,
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
};

let page: Page | undefined;

/** Reads the files, once for all replicas of a process; throws if a file is missing. */
export function loadPage(): Page {
  page ??= new Map(
    [...pageFiles()].map(([path, bytes]) => [path === "/index.html" ? "/" : path, fileOf(path, bytes)]),
  );
  return page;
}

/** A file to serve; the name tells the type. */
export function fileOf(name: string, bytes: Buffer): PageFile {
  const bodies = new Map<Encoding, Promise<Buffer>>();
  return {
    type: types[extname(name)] ?? "application/octet-stream",
    etag: `"${createHash("sha256").update(bytes).digest("base64url").slice(0, 22)}"`,
    isImmutable: /-([0-9a-f]{10}|[0-9A-Z]{8})\.\w+$/.test(name),
    body: (encoding) => {
      const body = bodies.get(encoding) ?? compressors[encoding](bytes);
      bodies.set(encoding, body);
      return body;
    },
  };
}

const compressors: Record<Encoding, (bytes: Buffer) => Promise<Buffer>> = {
  identity: async (bytes) => bytes,
  gzip: (bytes) => promisify(gzip)(bytes, { level: 9 }),
  // Asked for over TLS alone, once for each file and process: a tenth less than quality 9, for 0.4
  // s of processor time.
  br: (bytes) =>
    promisify(brotliCompress)(bytes, {
      params: {
        [zlib.BROTLI_PARAM_QUALITY]: zlib.BROTLI_MAX_QUALITY,
        [zlib.BROTLI_PARAM_SIZE_HINT]: bytes.length,
      },
    }),
};

/** Answers GET and HEAD of the page's files, and hands on everything else. */
export function withPage(next: Handler, page: Page, check: HostCheck = () => undefined): Handler {
  return (request, response) => {
    if (request.method !== "GET" && request.method !== "HEAD") return next(request, response);
    const file = page.get(request.url?.replace(/\?.*$/, "") ?? "");
    if (!file) return next(request, response);
    const problem = check(authorityOf(request));
    if (problem !== undefined) return refuseHost(response, problem);
    return serveFile(request, response, file);
  };
}

/** Answers GET or HEAD with a file, its encoding and the headers that keep a page safe. */
export async function serveFile(
  request: Parameters<Handler>[0],
  response: Parameters<Handler>[1],
  file: PageFile,
  status = 200,
): Promise<void> {
  const encoding = chooseEncoding(request.headers["accept-encoding"]);
  // The bytes differ by encoding, and so does a strong ETag.
  const etag = encoding === "identity" ? file.etag : `${file.etag.slice(0, -1)}-${encoding}"`;
  const headers: Record<string, string> = {
    ...securityHeaders,
    etag,
    vary: "accept-encoding",
    "cache-control": file.isImmutable ? "public, max-age=31536000, immutable" : "no-cache",
  };
  // A common type for the two; their overloads have none.
  const answer = response as ServerResponse;
  if (status === 200 && namesEtag(request.headers["if-none-match"], etag)) {
    answer.writeHead(304, headers);
    answer.end();
    return;
  }
  const body = await file.body(encoding);
  answer.writeHead(status, {
    ...headers,
    "content-type": file.type,
    "content-length": String(body.length),
    ...(encoding === "identity" ? {} : { "content-encoding": encoding }),
  });
  answer.end(request.method === "HEAD" ? undefined : body);
}

function chooseEncoding(accepted: string | string[] | undefined): Encoding {
  const offered = String(accepted ?? "")
    .split(",")
    .map((part) => part.trim().toLowerCase())
    .filter((part) => !/;\s*q=0(\.0*)?$/.test(part))
    .map((part) => part.replace(/;.*$/, "").trim());
  return offered.includes("br") ? "br" : offered.includes("gzip") ? "gzip" : "identity";
}

function namesEtag(asked: string | undefined, etag: string): boolean {
  if (asked === undefined) return false;
  if (asked.trim() === "*") return true;
  return asked.split(",").some((part) => part.trim().replace(/^W\//, "") === etag);
}
