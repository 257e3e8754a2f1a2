import { isGroupAlive, startTimeOf } from "../process-table.ts";
import { markerOfInstallation } from "./environment.ts";
import type { Journal, JournalNote } from "./journal.ts";
import { endEscaped, endGroup } from "./process-group.ts";

/** How long a leftover may take to end by itself, in ms. Nobody waits for its result any more. */
const LEFTOVER_GRACE_MS = 1_000;

export interface SweepReport {
  /** Runs whose agents were still running and were ended. */
  ended: string[];
  /** Processes that had left their group and were killed. */
  escaped: number;
  /** Notes that could not be read, which stay for the next daemon. */
  unreadable: { path: string; problem: string }[];
}

/**
 * Ends what an earlier daemon of this installation left running: the process groups in its journal, and (on Linux) every
 * process that carries the installation's marker. Call it with the state directory locked and before anything is started.
 */
export async function sweepLeftovers(journal: Journal, installId: string): Promise<SweepReport> {
  const { notes, unreadable } = await journal.read();
  const swept = await Promise.all(
    notes.map(async (note) => {
      const wasAlive = await endLeftover(note);
      await journal.remove(note.attemptToken);
      return wasAlive ? [note.runId] : [];
    }),
  );
  return { ended: swept.flat(), escaped: await endEscaped(markerOfInstallation(installId)), unreadable };
}

/**
 * Ends the note's process group if its leader is still that very process. A process id that was given away again has
 * another start time and is left alone. A group whose leader is gone cannot be told from a stranger's: what is left of
 * it is found by its marker.
 */
async function endLeftover(note: JournalNote): Promise<boolean> {
  if (note.pid === undefined || note.startTime === undefined) return false;
  if ((await startTimeOf(note.pid)) !== note.startTime || !isGroupAlive(note.pid)) return false;
  await endGroup(note.pid, { graceMs: LEFTOVER_GRACE_MS });
  return true;
}
