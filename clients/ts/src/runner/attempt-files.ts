import { chmod, chown, mkdir, mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TurnAssignment } from "../gen/pinion/v1/device_pb.js";
import { ensureDirectory } from "../private-directory.ts";
import { readRegularFile } from "../regular-file.ts";
import { removeTree } from "../remove-tree.ts";
import type { RunAs } from "./confinement.ts";

/**
 * Bound on the snapshot for the conversation's next turn, in bytes; equal to the protocol's field
 * rule.
 */
const SNAPSHOT_BYTES_MAX = 1_048_576;
/** Bound on the file in bytes, above any time or duration. */
const RETRY_AFTER_BYTES_MAX = 256;

/** Files exchanged between an attempt's program and the daemon, in a directory of the attempt. */
export interface AttemptFiles {
  directory: string;
  /**
   * File with the snapshot of the conversation's last turn; undefined for the first turn and for
   * runs.
   */
  snapshotIn: string | undefined;
  /** Path for the snapshot of the next turn; undefined without snapshots. */
  snapshotOut: string | undefined;
  /** File with the run's input, as JSON; undefined: the run has no input. */
  input: string | undefined;
  /** Path for the program's request to be tried again later. */
  retryAfter: string;
  /**
   * Reads the program's snapshot; empty without a file. Refuses more than
   * {@link SNAPSHOT_BYTES_MAX} and anything but a regular file.
   */
  collectSnapshot(): Promise<{ snapshot?: Uint8Array } | { problem: string }>;
  /** Reads the program's request for a later try; empty without a file. */
  collectRetryAfter(): Promise<{ text?: string } | { problem: string }>;
  dispose(): Promise<void>;
}

const directoryOf = (stateDir: string) => join(stateDir, "files");

/**
 * Creates the attempt's directory and writes the turn's snapshot; readable only by this user, or by
 * the program's user. `mark` names the attempt and cannot be guessed.
 */
export async function openAttemptFiles(options: {
  stateDir: string;
  mark: string;
  turn: TurnAssignment | undefined;
  /** What the run was started with, as JSON; empty: nothing. */
  input: string;
  runAs: RunAs | undefined;
}): Promise<AttemptFiles> {
  const { turn, runAs, input } = options;
  const { root, directory } = await openDirectory(options);
  const give = async (name: string, content: string | Uint8Array) => {
    const path = join(directory, name);
    await writeFile(path, content, { mode: 0o600, flag: "wx" });
    if (runAs !== undefined) await chown(path, runAs.uid, runAs.gid);
    return path;
  };
  const snapshot = turn?.usesSnapshot === true ? turn : undefined;
  const hasEarlier = snapshot !== undefined && snapshot.snapshotVersion > 0n;
  const snapshotIn = hasEarlier ? await give("in", snapshot.snapshot) : undefined;
  const snapshotOut = snapshot === undefined ? undefined : join(directory, "out");
  const retryAfter = join(directory, "retry_after");
  return {
    directory,
    input: input === "" ? undefined : await give("input.json", input),
    snapshotIn,
    snapshotOut,
    retryAfter,
    async collectSnapshot() {
      if (snapshotOut === undefined) return {};
      const left = await collect(snapshotOut, {
        bytesMax: SNAPSHOT_BYTES_MAX,
        name: "the snapshot that it left in PINION_SNAPSHOT_OUT",
      });
      return "bytes" in left ? { snapshot: new Uint8Array(left.bytes) } : left;
    },
    async collectRetryAfter() {
      const left = await collect(retryAfter, {
        bytesMax: RETRY_AFTER_BYTES_MAX,
        name: "what it left in PINION_RETRY_AFTER_FILE",
      });
      return "bytes" in left ? { text: left.bytes.toString("utf8").trim() } : left;
    },
    dispose: () => removeTree(root),
  };
}

/** Creates the attempt's directory. `root` is the directory to remove at the end. */
async function openDirectory(options: {
  stateDir: string;
  mark: string;
  runAs: RunAs | undefined;
}): Promise<{ root: string; directory: string }> {
  const { runAs } = options;
  if (runAs === undefined) {
    const directory = join(directoryOf(options.stateDir), options.mark);
    await ensureDirectory(directoryOf(options.stateDir));
    await mkdir(directory, { mode: 0o700 });
    return { root: directory, directory };
  }
  // The program's user cannot enter the state directory. The user must not be able to change the
  // outer directory: a link in place of the inner one could point the daemon to another file.
  const root = await mkdtemp(join(tmpdir(), "pinion-"));
  await chmod(root, 0o711);
  const directory = join(root, "files");
  await mkdir(directory, { mode: 0o700 });
  await chown(directory, runAs.uid, runAs.gid);
  return { root, directory };
}

/** Reads a file left by the program; empty without a file. */
async function collect(
  path: string,
  { bytesMax, name }: { bytesMax: number; name: string },
): Promise<{ bytes: Buffer } | { problem: string } | Record<never, never>> {
  const left = await readRegularFile(path, { bytesMax });
  switch (left.kind) {
    case "read":
      return { bytes: left.bytes };
    case "absent":
      return {};
    default:
      return { problem: `${name} cannot be used: ${left.problem}` };
  }
}

/** Removes the files of an earlier daemon. */
export function removeAttemptFiles(stateDir: string): Promise<void> {
  return removeTree(directoryOf(stateDir));
}
