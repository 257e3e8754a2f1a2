/**
 * The default time limit of `vi.waitFor`: Vitest's one second fails tests on a machine with other
 * work. A wait ends as soon as its condition holds, so only failures take longer. `expect.poll` has
 * its limit in vitest.config.ts.
 */
import { vi } from "vitest";

const patienceMs = 15_000;
const isPatient = Symbol.for("pinion.test.patient");
const plain = vi.waitFor as typeof vi.waitFor & { [isPatient]?: true };

// A worker runs the setup before each of its files.
if (!plain[isPatient]) {
  const patient: typeof vi.waitFor = (callback, options) =>
    plain(callback, typeof options === "number" ? options : { timeout: patienceMs, ...options });
  vi.waitFor = Object.assign(patient, { [isPatient]: true as const });
}
