/**
 * Refuses a second machine, a second daemon of a machine, and a clone of a daemon, with a copy of a
 * device's identity. The daemon whose attempts run keeps the device, also while it is away for less
 * than the TTL.
 */
import { durationMs } from "@bufbuild/protobuf/wkt";
import type { Hello } from "#gen/pinion/v1/device_pb.js";
import { refuse } from "../../../errors.ts";
import type * as devices from "../../../store/people/devices/devices.ts";
import * as machines from "../../../store/people/devices/machines.ts";
import type { Db } from "../../../store/pg/database.ts";
import { isUnavailable } from "../../../store/pg/failures.ts";
import { storableText } from "../../../store/pg/values/storable.ts";

export type RivalDeps = {
  db: Db;
  ttlMs: number;
  /** Devices may have been silent because nobody could hear them. */
  isQuiet?: () => boolean;
};

export function machineOf({ machine }: Hello): machines.Machine | undefined {
  if (!machine) return undefined;
  const { machineHash, bootHash, hostName, arch, daemonId } = machine;
  return {
    ...{ machineHash: storableText(machineHash), bootHash: storableText(bootHash) },
    ...{ hostName: storableText(hostName), arch: storableText(arch), daemonId: storableText(daemonId) },
  };
}

/** The number of the daemon's last session; 0 for none. */
export const sessionEpochOf = ({ machine }: Hello): bigint => machine?.sessionEpoch ?? 0n;

/** Refuses a hello with a rival; notes the machine of any other. */
export async function requireOneMachine(
  { db, ttlMs, isQuiet = () => false }: RivalDeps,
  { device, isWorker }: { device: devices.Known; isWorker: boolean },
  hello: Hello,
): Promise<void> {
  const machine = machineOf(hello);
  if (!machine) return;
  const age = hello.machine?.daemonAge;
  const newcomer = {
    ...{ machine, daemonAgeMs: age && durationMs(age), sessionEpoch: sessionEpochOf(hello) },
    held: new Set(hello.held.map(({ attemptToken }) => attemptToken)),
  };
  const rival = await machines.findRival(db, device, newcomer, { ttlMs, isQuiet: isQuiet() });
  if (rival?.kind === "perhaps_ended") refuse("unavailable", endingWords, { retryAfterMs: 1_000 });
  if (rival) refuse("failed_precondition", duplicateWords(rival, machine.hostName, isWorker));
  await machines.noteMachine(db, device, machine);
}

const endingWords =
  "the session of another daemon of this device has not ended yet, or its runs go on; " +
  "connect again, and stop that daemon if it still runs";

/** The refusal for a second daemon with the same identity. */
function duplicateWords(rival: machines.Rival, here: string, isWorker: boolean): string {
  const there = rival.hostName || "nameless";
  const remedy = isWorker
    ? "give this worker a state directory of its own"
    : "`pinion device enroll --anew --join-code …` makes this a device of its own";
  if (rival.kind === "machine") {
    return `this device is connected from another machine (${there}), and ${here || "this one"} has a copy of its identity; ${remedy}`;
  }
  if (rival.kind === "clone") {
    return `this device is connected by a clone of this daemon on ${there}: one of the two machines was copied while it ran; on the copy ${remedy}`;
  }
  return `this device is connected by another daemon on ${there}, and this daemon has a copy of its identity; ${remedy}`;
}

/**
 * Knows whether the silence of devices means anything: for a TTL after the start, and after the
 * database was away, it does not. `heeding` learns from the outcome of statements.
 */
export function createQuiet(ttlMs: number) {
  let until = performance.now() + ttlMs;
  let isAway = false;
  return {
    isQuiet: () => isAway || performance.now() < until,
    async heeding<T>(ask: () => Promise<T>): Promise<T> {
      try {
        const answer = await ask();
        if (isAway) until = performance.now() + ttlMs;
        isAway = false;
        return answer;
      } catch (error) {
        isAway ||= isUnavailable(error);
        throw error;
      }
    },
  };
}
