import { chmod, chown, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TurnAssignment } from "../gen/pinion/v1/device_pb.js";
import { readRegularFile } from "../regular-file.ts";
import type { RunAs } from "./confinement.ts";

/** What a turn may leave for the next one of its conversation, in bytes; the protocol's field rule says the same. */
export const SNAPSHOT_BYTES_MAX = 1_048_576;
/** A moment or a length of time is shorter. */
const RETRY_AFTER_BYTES_MAX = 256;

/** The files by which one attempt's program and its daemon speak with each other, in a directory of the attempt's own. */
export interface AttemptFiles {
  directory: string;
  /** Holds what the conversation's last turn left; undefined for its first, and for runs. */
  snapshotIn: string | undefined;
  /** Where the program leaves what the next turn is given; undefined without snapshots. */
  snapshotOut: string | undefined;
  /** Holds what the run was started with, as JSON; undefined: it was started with nothing. */
  input: string | undefined;
  /** Where the program says when it wants to be tried again. */
  retryAfter: string;
  /** What the program left; nothing if it wrote no file. Refuses more than {@link SNAPSHOT_BYTES_MAX}, and what is no file. */
  collectSnapshot(): Promise<{ snapshot?: Uint8Array } | { problem: string }>;
  /** What it says about another try; nothing if it wrote no file. */
  collectRetryAfter(): Promise<{ text?: string } | { problem: string }>;
  dispose(): Promise<void>;
}

const directoryOf = (stateDir: string) => join(stateDir, "files");

/**
 * Makes the attempt's directory, and writes what a turn is given; only this user may read it, or the one as whom the program
 * runs. `mark` names the attempt and is unguessable.
 */
export async function openAttemptFiles(options: {
  stateDir: string;
  mark: string;
  turn: TurnAssignment | undefined;
  /** What the run was started with, as JSON; empty: nothing. */
  input: string;
  runAs: RunAs | undefined;
}): Promise<AttemptFiles> {
  const { turn, runAs } = options;
  let root = join(directoryOf(options.stateDir), options.mark);
  let directory = root;
  if (runAs === undefined) await mkdir(directory, { recursive: true, mode: 0o700 });
  else {
    // The state directory is closed to that user. It may not change the outer one: a link in the inner one's place would lead
    // the daemon to a file of its own.
    root = await mkdtemp(join(tmpdir(), "pinion-"));
    await chmod(root, 0o711);
    directory = join(root, "files");
    await mkdir(directory, { mode: 0o700 });
    await chown(directory, runAs.uid, runAs.gid);
  }
  const usesSnapshot = turn?.usesSnapshot === true;
  const snapshotOut = usesSnapshot ? join(directory, "out") : undefined;
  const retryAfter = join(directory, "retry_after");
  let snapshotIn: string | undefined;
  if (usesSnapshot && turn.snapshotVersion > 0n) {
    snapshotIn = join(directory, "in");
    await writeFile(snapshotIn, turn.snapshot, { mode: 0o600, flag: "wx" });
    if (runAs !== undefined) await chown(snapshotIn, runAs.uid, runAs.gid);
  }
  let input: string | undefined;
  if (options.input !== "") {
    input = join(directory, "input.json");
    await writeFile(input, options.input, { mode: 0o600, flag: "wx" });
    if (runAs !== undefined) await chown(input, runAs.uid, runAs.gid);
  }
  return {
    directory,
    input,
    snapshotIn,
    snapshotOut,
    retryAfter,
    async collectSnapshot() {
      if (snapshotOut === undefined) return {};
      const left = await readRegularFile(snapshotOut, { bytesMax: SNAPSHOT_BYTES_MAX });
      switch (left.kind) {
        case "read":
          return { snapshot: new Uint8Array(left.bytes) };
        case "absent":
          return {};
        default:
          return {
            problem: `the snapshot that it left in PINION_SNAPSHOT_OUT cannot be used: ${left.problem}`,
          };
      }
    },
    async collectRetryAfter() {
      const left = await readRegularFile(retryAfter, { bytesMax: RETRY_AFTER_BYTES_MAX });
      switch (left.kind) {
        case "read":
          return { text: left.bytes.toString("utf8").trim() };
        case "absent":
          return {};
        default:
          return { problem: `what it left in PINION_RETRY_AFTER_FILE cannot be used: ${left.problem}` };
      }
    },
    dispose: () => rm(root, { recursive: true, force: true }),
  };
}

/** Removes what an earlier daemon left behind. */
export function removeAttemptFiles(stateDir: string): Promise<void> {
  return rm(directoryOf(stateDir), { recursive: true, force: true });
}
