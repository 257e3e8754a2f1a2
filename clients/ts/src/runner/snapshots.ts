import { mkdir, open, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { hasCode } from "../device/errors.ts";
import type { TurnAssignment } from "../gen/pinion/v1/device_pb.js";

/** What a turn may leave for the next one of its conversation, in bytes; the protocol's field rule says the same. */
export const SNAPSHOT_BYTES_MAX = 1_048_576;

/** The files of one turn's snapshots: what it is given, and what it may leave. */
export interface SnapshotFiles {
  /** Holds what the last turn left; undefined for a conversation's first. */
  in: string | undefined;
  /** Where the program leaves what the next turn is given; undefined for a turn without snapshots. */
  out: string | undefined;
  /** What the program left; nothing if it wrote no file. Refuses more than {@link SNAPSHOT_BYTES_MAX}. */
  collect(): Promise<{ snapshot?: Uint8Array } | { problem: string }>;
  dispose(): Promise<void>;
}

const directoryOf = (stateDir: string) => join(stateDir, "snapshots");

/** Writes what a turn is given; only this user may read it. `mark` names the attempt and is unguessable. */
export async function openSnapshotFiles(options: {
  stateDir: string;
  mark: string;
  turn: TurnAssignment;
}): Promise<SnapshotFiles> {
  const { turn } = options;
  const directory = join(directoryOf(options.stateDir), options.mark);
  const out = turn.usesSnapshot ? join(directory, "out") : undefined;
  let given: string | undefined;
  if (turn.usesSnapshot) await mkdir(directory, { recursive: true, mode: 0o700 });
  if (turn.usesSnapshot && turn.snapshotVersion > 0n) {
    given = join(directory, "in");
    await writeFile(given, turn.snapshot, { mode: 0o600 });
  }
  return {
    in: given,
    out,
    collect: () => (out === undefined ? Promise.resolve({}) : read(out)),
    dispose: () => rm(directory, { recursive: true, force: true }),
  };
}

async function read(path: string): Promise<{ snapshot?: Uint8Array } | { problem: string }> {
  let file: Awaited<ReturnType<typeof open>>;
  try {
    file = await open(path);
  } catch (error) {
    if (hasCode(error, "ENOENT")) return {};
    throw error;
  }
  try {
    // One byte more than is allowed tells that there is more, whatever the file's size was a moment ago.
    const buffer = Buffer.alloc(SNAPSHOT_BYTES_MAX + 1);
    let length = 0;
    while (length < buffer.length) {
      const { bytesRead } = await file.read(buffer, length, buffer.length - length);
      if (bytesRead === 0) break;
      length += bytesRead;
    }
    if (length > SNAPSHOT_BYTES_MAX) {
      return { problem: "the snapshot that it left in PINION_SNAPSHOT_OUT is larger than 1 MiB" };
    }
    return { snapshot: new Uint8Array(buffer.subarray(0, length)) };
  } finally {
    await file.close();
  }
}

/** Removes what an earlier daemon left behind. */
export function removeSnapshotFiles(stateDir: string): Promise<void> {
  return rm(directoryOf(stateDir), { recursive: true, force: true });
}
