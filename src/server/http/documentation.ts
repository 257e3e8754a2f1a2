/** The documentation under `/docs`, rendered from the Markdown (docs/site.ts); needs no token. */
import type { ServerResponse } from "node:http";
import type { Site } from "./docs/site.ts";
import { fileOf, type PageFile, serveFile } from "./page.ts";
import { authorityOf } from "./port/authority.ts";
import { type HostCheck, refuseHost } from "./port/own-host.ts";
import type { Handler } from "./port/requests.ts";

/** Deeper unknown paths get the links of this depth. */
const unknownDepthMax = 8;

/** Answers GET and HEAD of `/docs` and the paths below, and hands on everything else. */
export function withDocumentation(next: Handler, check: HostCheck = () => undefined): Handler {
  const kept = new Map<string, PageFile>();
  let opening: Promise<Site> | undefined;
  const keep = (key: string, name: string, bytes: Buffer): PageFile => {
    const file = fileOf(name, bytes);
    kept.set(key, file);
    return file;
  };
  return async (request, answer) => {
    const path = request.url?.replace(/\?.*$/, "") ?? "";
    const isOurs = path === "/docs" || path.startsWith("/docs/");
    if (!isOurs || (request.method !== "GET" && request.method !== "HEAD")) return next(request, answer);
    const problem = check(authorityOf(request));
    if (problem !== undefined) return refuseHost(answer, problem);
    const ready = kept.get(path);
    if (ready) return serveFile(request, answer, ready);
    // Most servers never show a page of the documentation: the pages are loaded by the first
    // reader.
    opening ??= import("./docs/site.ts").then(({ openSite }) => openSite());
    const site = await opening;
    const found = site.find(path);
    if (found) return serveFile(request, answer, keep(path, found.name, found.bytes));
    const depth = path.split("/").length - 2;
    const spelling = site.findSpelling(path);
    if (spelling !== undefined) {
      const response = answer as ServerResponse;
      response.writeHead(308, { location: "../".repeat(depth) + spelling.slice(1), "content-length": "0" });
      response.end();
      return;
    }
    const shown = Math.min(depth, unknownDepthMax);
    const key = `unknown ${shown}`;
    const list = kept.get(key) ?? keep(key, "unknown.html", Buffer.from(site.unknown(shown)));
    return serveFile(request, answer, list, 404);
  };
}
