import { isGroupAlive, startTimeOf } from "../process-table.ts";
import { markerOfPlace, type Place } from "./environment.ts";
import type { Journal, JournalNote } from "./journal.ts";
import { endEscaped, endGroup } from "./process-group.ts";

/** Grace of a leftover process, in ms; its result is no longer needed. */
const LEFTOVER_GRACE_MS = 1_000;

export interface SweepReport {
  /** Runs whose agents were still running and were ended. */
  ended: string[];
  /** Number of killed processes outside their group. */
  escaped: number;
  /** Unreadable notes, left for the next daemon. */
  unreadable: { path: string; problem: string }[];
}

/**
 * Ends the processes of an earlier daemon of this installation: the process groups in its journal,
 * and (on Linux) every process with the marker of the installation in this state directory. A note
 * that came with a copy of another directory names processes of that directory's daemon, and is
 * removed. Call with the state directory locked and before any start.
 */
export async function sweepLeftovers(journal: Journal, place: Place): Promise<SweepReport> {
  const { notes, unreadable } = await journal.read();
  const swept = await Promise.all(
    notes.map(async (note) => {
      const wasAlive = await endLeftover(note, place);
      await journal.remove(note.attemptToken);
      return wasAlive ? [note.workId] : [];
    }),
  );
  return { ended: swept.flat(), escaped: await endEscaped(markerOfPlace(place)), unreadable };
}

/**
 * Ends the note's process group if its leader is still the same process. A reused process id has
 * another start time and is left alone. A group without its leader may belong to another program;
 * its remaining processes are found by the marker.
 */
async function endLeftover(note: JournalNote, { directory }: Place): Promise<boolean> {
  if (note.directory !== undefined && note.directory !== directory) return false;
  if (note.pid === undefined || note.startTime === undefined) return false;
  if ((await startTimeOf(note.pid)) !== note.startTime || !isGroupAlive(note.pid)) return false;
  await endGroup(note.pid, { graceMs: LEFTOVER_GRACE_MS });
  return true;
}
