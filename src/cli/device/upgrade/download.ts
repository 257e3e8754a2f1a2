/**
 * The daemon's program from its server: the list of programs, and the fetch of a program. The
 * SHA-256 of the list is compared before the file can be started.
 */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { createWriteStream, rmSync } from "node:fs";
import { chmod, open } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { basename, dirname, join } from "node:path";
import { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip } from "node:zlib";
import type { ProxySetting } from "@pinion/client";
import { outgoingRequest } from "../../../network/outgoing.ts";
import { exitCodes, Failure } from "../../failures.ts";
import { plain } from "../../print/table.ts";

export type Listed = { program: string; system: string; file: string; sha256: string; bytes: number };
export type Offer = { version: string; download: Listed };
export type Source = { url: string; proxy?: ProxySetting; signal: AbortSignal };

const listBytesMax = 1024 * 1024;
const listMsMax = 20_000;
/** Bound of a program, packed and unpacked; the largest of ours is a third of the bound. */
const programBytesMax = 1024 ** 3;
const downloadMsMax = 15 * 60_000;
/** Time in ms for a fetched program to print its version. */
const versionMsMax = 30_000;

/** The program for this system in the server's list; undefined: none. */
export async function findOffer(
  source: Source,
  wanted: { program: string; system: string },
): Promise<Offer | undefined> {
  const response = await get(source, "/downloads/manifest.json", listMsMax);
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response) {
    bytes += (chunk as Buffer).length;
    if (bytes > listBytesMax) throw unfit(source, "the list of programs is too long");
    chunks.push(chunk as Buffer);
  }
  let list: { version?: unknown; downloads?: unknown };
  try {
    list = JSON.parse(Buffer.concat(chunks).toString("utf8")) as typeof list;
  } catch {
    throw unfit(source, "the list of programs is not JSON");
  }
  const downloads = Array.isArray(list.downloads) ? (list.downloads as Listed[]) : [];
  const download = downloads.find(
    ({ program, system }) => program === wanted.program && system === wanted.system,
  );
  if (!download) return undefined;
  const isFit =
    /^[\w.-]+$/.test(String(download.file)) &&
    /^[0-9a-f]{64}$/.test(String(download.sha256)) &&
    Number.isSafeInteger(download.bytes);
  if (!isFit) throw unfit(source, "the list of programs has a wrong line");
  return { version: String(list.version ?? "").slice(0, 64), download };
}

/**
 * Fetches a program into the folder of the present program, and returns the path. The file
 * has the listed digest, is on the disk (fsync), and prints the offered version.
 */
export async function fetchProgram(source: Source, offer: Offer, present: string): Promise<string> {
  const path = nextPlace(present);
  rmSync(path, { force: true });
  try {
    await download(source, offer.download, path);
    await chmod(path, 0o755);
    const said = await versionOf(path, source.signal);
    if (said !== offer.version) {
      throw unfit(source, `${offer.download.file} says that it is ${plain(said)}, not ${offer.version}`);
    }
    return path;
  } catch (error) {
    rmSync(path, { force: true });
    throw error;
  }
}

/** Place of a fetched program: in the same folder, so a rename replaces the present program. */
function nextPlace(present: string): string {
  return join(dirname(present), `.${basename(present)}.next`);
}

async function download(source: Source, { file, sha256, bytes }: Listed, path: string): Promise<void> {
  if (bytes > programBytesMax) throw unfit(source, `${file} is larger than a program can be`);
  const response = await get(source, `/downloads/${file}`, downloadMsMax);
  const hash = createHash("sha256");
  const steps = [bounded(bytes, (chunk) => hash.update(chunk))];
  if (file.endsWith(".gz"))
    steps.push(
      createGunzip(),
      bounded(programBytesMax, () => {}),
    );
  await pipeline([response, ...steps, createWriteStream(path, { mode: 0o700, flags: "wx" })], {
    signal: source.signal,
  });
  const found = hash.digest("hex");
  if (found !== sha256) {
    throw unfit(
      source,
      `the fetched ${file} is not what the server lists: SHA-256 ${found} instead of ${sha256}`,
    );
  }
  const handle = await open(path, "r+");
  await handle.sync();
  await handle.close();
}

function bounded(bytesMax: number, see: (chunk: Buffer) => void): Transform {
  let bytes = 0;
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      bytes += chunk.length;
      if (bytes > bytesMax)
        return done(new Error(`the download is longer than the listed ${bytesMax} bytes`));
      see(chunk);
      done(null, chunk);
    },
  });
}

function versionOf(path: string, signal: AbortSignal): Promise<string> {
  return new Promise((done, fail) => {
    execFile(path, ["--version"], { timeout: versionMsMax, signal, env: {} }, (error, out, err) => {
      if (!error) return done(out.trim());
      const said = err.trim().split("\n")[0] || error.message;
      fail(new Failure(exitCodes.failed, `the fetched program does not run here: ${plain(said)}`));
    });
  });
}

async function get(source: Source, path: string, ms: number): Promise<IncomingMessage> {
  const url = new URL(`${source.url.replace(/\/+$/, "")}${path}`);
  const signal = AbortSignal.any([source.signal, AbortSignal.timeout(ms)]);
  const response = await new Promise<IncomingMessage>((done, fail) => {
    outgoingRequest(url, { signal, ...(source.proxy ? { proxy: source.proxy } : {}) }, done)
      .once("error", fail)
      .end();
  });
  if (response.statusCode === 200) return response;
  response.resume();
  throw unfit(source, `${url.pathname} answers ${response.statusCode}`);
}

function unfit(source: Source, message: string): Failure {
  return new Failure(exitCodes.failed, message, `${source.url}/downloads/manifest.json lists the programs`);
}
