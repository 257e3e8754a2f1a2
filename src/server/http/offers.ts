/**
 * The programs that this server gives: those of the folder PINION_DOWNLOADS, and the running
 * program itself if the program is a single file.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { build } from "../../build.ts";

/** A program for a system, as the list names it. `program` is "npm" for the npm package. */
export type Download = { program: string; system: string; file: string; sha256: string; bytes: number };
export type Offer = { download: Download; path: string };

export type Offers = {
  /** The current programs, read anew each time: a new build is offered without a restart. */
  list(): Promise<{ version: string; offers: Offer[] }>;
  /** Version of the offered daemon at the last refresh; empty: none. */
  version(): string;
  /** Reads the version anew, at most once in `versionMsMax`: each device's hello asks for it. */
  refresh(): Promise<void>;
};

/** Age in ms at which the version is read again. */
const versionMsMax = 1_000;
/** The bound of Welcome.daemon_version. */
const versionCharactersMax = 64;

export function createOffers(directory: string | undefined): Offers {
  let known = "";
  let readAt = Number.NEGATIVE_INFINITY;
  const list = async () => {
    const found = directory === undefined ? nothing : await offersIn(directory);
    const own = await ownOffer();
    const has = (system: string) =>
      found.offers.some(({ download }) => download.system === system && download.program !== "npm");
    if (!own || has(own.download.system)) return found;
    return { version: found.version || build.version, offers: [...found.offers, own] };
  };
  const read = async () => {
    readAt = performance.now();
    const { version } = directory === undefined ? nothing : await offersIn(directory);
    known = version || (build.kind === "executable" ? build.version : "");
  };
  return {
    list,
    version: () => known,
    async refresh() {
      if (performance.now() - readAt > versionMsMax) await read();
    },
  };
}

type Found = { version: string; offers: Offer[] };
const nothing: Found = { version: "", offers: [] };

async function offersIn(directory: string): Promise<Found> {
  try {
    const text = await readFile(join(directory, "manifest.json"), "utf8");
    const { version, downloads } = JSON.parse(text) as { version?: string; downloads: Download[] };
    // A file name never leads out of the folder, whatever the list says.
    const offers = downloads
      .filter(({ file }) => /^[\w.-]+$/.test(file) && !file.startsWith("."))
      .map((download) => ({ download, path: join(directory, download.file) }));
    return { version: String(version ?? "").slice(0, versionCharactersMax), offers };
  } catch {
    // No build exists, or a build is being written.
    return nothing;
  }
}

let own: Promise<Offer> | undefined;

/** The running program, if it is a single file. Its digest takes a moment and is computed once. */
async function ownOffer(): Promise<Offer | undefined> {
  if (build.kind !== "executable") return undefined;
  own ??= (async () => {
    const path = process.execPath;
    const hash = createHash("sha256");
    await pipeline(createReadStream(path), hash);
    const system = `${process.platform}-${process.arch}`;
    const { size } = await stat(path);
    const download = {
      program: "pinion",
      system,
      file: `pinion-${system}`,
      sha256: hash.digest("hex"),
      bytes: size,
    };
    return { download, path };
  })();
  return own;
}
