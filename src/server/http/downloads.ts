/**
 * The files that turn a machine into a device, served without a token: the scripts `/install.sh`
 * and `/install.ps1`, and the programs under `/downloads/`. The programs are in the folder
 * PINION_DOWNLOADS, filled by scripts/build-executables.ts; a server built as a single file also
 * offers its own file to machines of its own system.
 */
import { createReadStream } from "node:fs";
import type { ServerResponse } from "node:http";
import { pipeline } from "node:stream/promises";
import type { TLSSocket } from "node:tls";
import { installScripts } from "./install/files.ts";
import type { Offer, Offers } from "./offers.ts";
import { authorityOf } from "./port/authority.ts";
import { type HostCheck, refuseHost } from "./port/own-host.ts";
import type { Handler } from "./port/requests.ts";

export type DownloadOptions = {
  offers: Offers;
  publicUrl: string | undefined;
  isBehindProxies: boolean;
  check?: HostCheck;
};

/**
 * Maximum number of concurrent downloads: each sends tens of megabytes to a client without a token.
 */
const downloadsAtOnceMax = 32;
/** A slow connection needs minutes; a stopped reader does not hold a file for ever. */
const downloadMsMax = 15 * 60_000;
const retryAfterSeconds = 10;
/** Characters that are safe between single quotes in a shell; a parsed URL has no others. */
const harmless = /^https?:\/\/[A-Za-z0-9._:[\]/~%+-]+$/;

const textType = "text/plain; charset=utf-8";

/** Answers GET and HEAD of the scripts and the programs, and hands on everything else. */
export function withDownloads(next: Handler, options: DownloadOptions): Handler {
  const scripts = installScripts();
  let underWay = 0;
  return async (request, answer) => {
    const path = request.url?.replace(/\?.*$/, "") ?? "";
    const isOurs = scripts.has(path) || path.startsWith("/downloads/");
    if (!isOurs || (request.method !== "GET" && request.method !== "HEAD")) return next(request, answer);
    const response = answer as ServerResponse;
    const isHead = request.method === "HEAD";
    const authority = authorityOf(request);
    const problem = options.check?.(authority);
    if (problem !== undefined) return refuseHost(response, problem);
    const tell = (status: number, text: string, headers: Record<string, string> = {}) => {
      const bytes = Buffer.from(text);
      response.writeHead(status, {
        ...{ "content-type": textType, "content-length": String(bytes.length), "cache-control": "no-store" },
        ...{ "x-content-type-options": "nosniff", ...headers },
      });
      response.end(isHead ? undefined : bytes);
    };
    const script = scripts.get(path);
    if (script !== undefined) {
      const url = options.publicUrl ?? ownUrl(request, authority, options.isBehindProxies);
      const server = url.replace(/\/+$/, "");
      if (!harmless.test(server)) return tell(500, `PINION_PUBLIC_URL cannot stand in a script: ${server}\n`);
      return tell(200, script.replaceAll("{{server}}", server));
    }
    const { version, offers } = await options.offers.list();
    if (path === "/downloads/manifest.txt") return tell(200, listed(offers), { "x-pinion-version": version });
    if (path === "/downloads/manifest.json") {
      const downloads = offers.map(({ download }) => download);
      return tell(200, `${JSON.stringify({ version, downloads })}\n`, { "content-type": "application/json" });
    }
    const offer = offers.find(({ download }) => `/downloads/${download.file}` === path);
    if (!offer) return tell(404, "there is no such file; /downloads/manifest.txt lists them\n");
    if (underWay >= downloadsAtOnceMax) {
      return tell(503, "too many downloads at once\n", { "retry-after": String(retryAfterSeconds) });
    }
    underWay += 1;
    try {
      await send(response, offer, isHead);
    } finally {
      underWay -= 1;
    }
  };
}

function listed(offers: readonly Offer[]): string {
  const lines = offers.map(({ download }) => {
    const { sha256, program, system, file } = download;
    return `${sha256} ${program} ${system} ${file}\n`;
  });
  return lines.join("");
}

async function send(response: ServerResponse, { download, path }: Offer, isHead: boolean): Promise<void> {
  response.writeHead(200, {
    "content-type": "application/octet-stream",
    "content-length": String(download.bytes),
    "cache-control": "no-cache",
    etag: `"${download.sha256.slice(0, 32)}"`,
  });
  if (isHead) {
    response.end();
    return;
  }
  // A reader that goes away or is too slow ends the download and nothing else.
  await pipeline(createReadStream(path), response, { signal: AbortSignal.timeout(downloadMsMax) }).catch(
    () => {
      response.destroy();
    },
  );
}

/** The URL by which the request reached the server. A downloaded script dials the same URL. */
function ownUrl(
  request: Parameters<Handler>[0],
  authority: string | undefined,
  isBehindProxies: boolean,
): string {
  const forwarded = isBehindProxies ? request.headers["x-forwarded-proto"] : undefined;
  const isSecure = (request.socket as TLSSocket).encrypted === true || forwarded === "https";
  return `${isSecure ? "https" : "http"}://${authority ?? ""}`;
}
