import type { Entry } from "../history.ts";

/**
 * A daemon's child programs append a line at their beginning and at their end, without the daemon.
 */
export const programsFileOf = ({ stateDir }: { stateDir: string }) => `${stateDir}.programs`;

/** "finished 01a2… 1 1796000000000": phase, run, attempt, and the moment by the machine's clock. */
const line = /^(begun|finished) (\S+) (\d+) (\d+)$/;

/**
 * The lines as entries of the history. A program knows its run and the number of its attempt; the
 * token is the newest that its device was given before.
 */
export function programsOf(device: string, text: string, history: readonly Entry[]): Entry[] {
  const given = new Map<string, { at: number; token: string }[]>();
  for (const { at, ...entry } of history) {
    if (entry.kind !== "seen" || entry.device !== device || entry.message.case !== "assignment") continue;
    const { run, attempt, token } = entry.message;
    const name = `${run} ${attempt}`;
    given.set(name, [...(given.get(name) ?? []), { at, token }]);
  }
  return text.split("\n").flatMap((one): Entry[] => {
    const [, phase, run, attempt, moment] = line.exec(one) ?? [];
    const at = Number(moment);
    const token = given.get(`${run} ${attempt}`)?.findLast((assigned) => assigned.at <= at + 1)?.token;
    if (run === undefined || token === undefined) return [];
    return [{ at, kind: "work", phase: phase as "begun" | "finished", device, run, token, isProgram: true }];
  });
}
