/**
 * The upgrade of a daemon's program as a file in the state directory: written by the daemon and by
 * its trial, read by `pinion device upgrade`, `pinion device status` and the next daemon.
 */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { readRegularFile } from "@pinion/client";
import { writeWhole } from "../../data-files.ts";

export type UpgradeState =
  /** The new program is being fetched and checked; the daemon works as usual. */
  | "preparing"
  /** The new program is ready and waits for the running programs to end. */
  | "waiting"
  /** The new program runs as the daemon, from its temporary place. */
  | "trying"
  /** The new program came up and has taken the old one's place. */
  | "kept"
  /** The new program did not come up; the old one runs on. */
  | "rolled_back"
  /** The new program was not tried: there is none, or the fetched file is wrong. */
  | "failed";

export type UpgradeRecord = {
  /** The request of `pinion device upgrade`; empty: the daemon began by itself. */
  requestId: string;
  state: UpgradeState;
  from: string;
  to: string;
  /** SHA-256 of the download, in hex. */
  sha256: string;
  /** Number of programs that the upgrade waits for. */
  running: number;
  /** The daemon that watches the trial. */
  parentPid: number;
  at: string;
  problem: string;
};

/** A request of `pinion device upgrade` to the daemon. */
export type UpgradeRequest = { id: string; isAnyway: boolean };

const problemCharactersMax = 500;
/** Bound on both files, in bytes. */
const fileBytesMax = 65_536;
const recordPath = (stateDir: string) => join(stateDir, "upgrade.json");
const requestPath = (stateDir: string) => join(stateDir, "upgrade-request.json");

export async function readRecord(stateDir: string): Promise<UpgradeRecord | undefined> {
  const value = await readJson<Partial<UpgradeRecord>>(recordPath(stateDir));
  if (!value) return undefined;
  return {
    requestId: String(value.requestId ?? ""),
    state: (value.state ?? "failed") as UpgradeState,
    from: String(value.from ?? ""),
    to: String(value.to ?? ""),
    sha256: String(value.sha256 ?? ""),
    running: Number(value.running ?? 0),
    parentPid: Number(value.parentPid ?? 0),
    at: String(value.at ?? ""),
    problem: String(value.problem ?? ""),
  };
}

export function writeRecord(stateDir: string, record: Omit<UpgradeRecord, "at">): void {
  const problem = record.problem.slice(0, problemCharactersMax);
  const whole = { ...record, problem, at: new Date().toISOString() };
  writeWhole(recordPath(stateDir), JSON.stringify(whole), 0o600);
}

export function writeRequest(stateDir: string, request: UpgradeRequest): void {
  writeWhole(requestPath(stateDir), JSON.stringify(request), 0o600);
}

/** Reads and removes the request. */
export async function takeRequest(stateDir: string): Promise<UpgradeRequest | undefined> {
  const value = await readJson<Partial<UpgradeRequest>>(requestPath(stateDir));
  rmSync(requestPath(stateDir), { force: true, recursive: true });
  return value && { id: String(value.id ?? ""), isAnyway: value.isAnyway === true };
}

/** Programs of the device may write here, too: whatever is no such file counts as absent. */
async function readJson<T>(path: string): Promise<T | undefined> {
  const found = await readRegularFile(path, { bytesMax: fileBytesMax });
  if (found.kind !== "read") return undefined;
  try {
    return JSON.parse(found.bytes.toString("utf8")) as T;
  } catch {
    return undefined;
  }
}
